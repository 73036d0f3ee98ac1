package pc

// PanicSize is the number of ports; PanicPort is the usual one.
const (
	PanicSize = 1
	PanicPort = 0x505
)

// PanicEvent is what a guest reports about its end: bits of pvpanic (QEMU,
// docs/specs/pvpanic).
type PanicEvent byte

// The events that Pvpanic supports.
const (
	Panicked    PanicEvent = 1 << 0 // the guest's kernel panicked
	CrashLoaded PanicEvent = 1 << 1 // and a crash kernel continues; no reason to stop
)

func (e PanicEvent) String() string {
	switch {
	case e&Panicked != 0:
		return "guest panicked"
	case e&CrashLoaded != 0:
		return "guest panicked and runs its crash kernel"
	}
	return "no event"
}

// Pvpanic is the ISA pvpanic device, which has no state.
type Pvpanic struct {
	Event func(PanicEvent)
}

// Read implements bus.Device. It returns the supported events.
func (*Pvpanic) Read(_ uint64, p []byte) { p[0] = byte(Panicked | CrashLoaded) }

// Write implements bus.Device.
func (d *Pvpanic) Write(_ uint64, p []byte) {
	if e := PanicEvent(p[0]) & (Panicked | CrashLoaded); e != 0 {
		d.Event(e)
	}
}

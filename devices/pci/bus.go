package pci

import (
	"fmt"
	"sync"

	"vmm/bus"
)

// maxSlots is the number of devices on a bus, §3.2.2.3.2.
const maxSlots = 32

// Bus is the root bus: configuration space, and the assignment of addresses. Its
// devices have one function each. The one in slot 0 is the host bridge.
type Bus struct {
	memory, ports *bus.Bus
	windows       []Window
	lines         []*line

	mu        sync.Mutex
	functions []*Function
	address   uint32   // CONFIG_ADDRESS
	taken     []Window // initial addresses of BARs
}

// NewBus returns a bus with only a bridge. BARs answer on memory or on ports, inside
// the windows only: RAM, fixed ports, and what the kernel emulates itself must lie
// outside. The INTA of the device in a slot is wired to lines[slot%len(lines)].
// Without lines, devices have no pin.
func NewBus(memory, ports *bus.Bus, bridge Ident, windows []Window, lines []bus.Line) *Bus {
	b := &Bus{memory: memory, ports: ports, windows: windows}
	for _, l := range lines {
		b.lines = append(b.lines, &line{out: l})
	}
	f := newFunction(hostBridge(bridge), 0, nil)
	f.intx.line = new(line)
	f.power()
	b.functions = []*Function{f}
	return b
}

// Add puts d into the next free slot and gives its BARs their initial addresses in
// the windows, as firmware would. The guest still has to turn decoding on. Each of
// vectors, up to MaxVectors, becomes an entry of an MSI-X table. The guest must not
// run yet. Add returns an error if the bus or a window is full.
func (b *Bus) Add(d Device, vectors []Vector) (*Function, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	slot := len(b.functions)
	if slot == maxSlots {
		return nil, fmt.Errorf("pci: all %d slots are taken", maxSlots)
	}
	f := newFunction(d, slot, vectors)
	f.intx.line = new(line)
	if n := len(b.lines); n > 0 {
		f.intx.line = b.lines[slot%n]
		f.initial[regInterruptPin] = pinINTA
	}
	if err := b.assign(f); err != nil {
		return nil, err
	}
	f.power()
	b.functions = append(b.functions, f)
	return f, nil
}

// apply puts changes of f's registers into effect.
func (b *Bus) apply(f *Function) {
	control, master := f.messageControl(), f.command()&commandMaster != 0
	if f.master && !master {
		f.dev.BusMaster(false) // before its interrupts are held back
	}
	f.msix.setControl(control, master)
	if master && !f.master {
		f.dev.BusMaster(true)
	}
	f.master = master
	f.intx.gate(f.command()&commandINTxDisable != 0 || control&msixEnable != 0)
	b.decode(f)
}

// hostBridge is the device in slot 0. It has only an identity.
type hostBridge Ident

func (h hostBridge) Ident() Ident             { return Ident(h) }
func (hostBridge) BARs() []BAR                { return nil }
func (hostBridge) Capabilities() []Capability { return nil }
func (hostBridge) Moved(int, uint64, bool)    {}
func (hostBridge) BusMaster(bool)             {}

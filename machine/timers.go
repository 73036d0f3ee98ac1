package machine

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"vmm/kvm"
)

// Registers of the local APIC's timer (SDM vol. 3A, 11.5.4): offsets into its page,
// and the timer mode bits of the LVT entry.
const (
	apicLVTTimer     = 0x320
	apicInitialCount = 0x380
	apicCurrentCount = 0x390

	timerModes       = 3 << 17
	timerTSCDeadline = 2 << 17
)

// Model-specific registers for time, SDM vol. 4.
const (
	msrTSC         = 0x10
	msrTSCDeadline = 0x6e0
)

// timer is the timer of a vCPU's local APIC.
type timer struct {
	Deadline uint64 // TSC value; 0: not running in TSC-deadline mode
	Current  uint32 // remaining count; 0: not running in a count mode
}

// saveTimer reads the timer of a stopped vCPU.
func saveTimer(c timeCPU) (timer, error) {
	lapic, err := c.LAPIC()
	if err != nil {
		return timer{}, err
	}
	if binary.LittleEndian.Uint32(lapic[apicLVTTimer:])&timerModes != timerTSCDeadline {
		return timer{Current: binary.LittleEndian.Uint32(lapic[apicCurrentCount:])}, nil
	}
	m := []kvm.MSR{{Index: msrTSCDeadline}}
	err = c.MSRs(m)
	return timer{Deadline: m[0].Data}, err
}

// restore restarts the timer if it ran. It may have expired in the meantime, and KVM
// then forgets it. If held is true, the TSC of c is what it was when saved. Otherwise
// a deadline stays set, and the TSC reaches it by itself.
//
// Everything else in the APIC stays as it is now: interrupts may have arrived since
// the save. None may arrive between reading and writing, so devices must be stopped.
func (t timer) restore(c timeCPU, held bool) error {
	switch {
	case t.Deadline != 0 && held:
		return c.SetMSRs([]kvm.MSR{{Index: msrTSCDeadline, Data: t.Deadline}})
	case t.Current != 0:
		lapic, err := c.LAPIC()
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(lapic[apicCurrentCount:], t.Current)
		return c.SetLAPIC(lapic)
	}
	return nil
}

// The 8254: its frequency in Hz, and the modes in which a channel counts down once or
// repeatedly.
const (
	pitHz                                  = 1_193_182
	pitOnTerminal, pitOneShot, pitSoftware = 0, 1, 4
	pitRate, pitSquare                     = 2, 3
)

// remaining returns p with updated counts for channels that count down once and whose
// start time KVM reports. The new count is what is left at now, because KVM restarts
// channels. A channel that has finished stays finished, which takes a last count of
// one.
func remaining(p kvm.PIT, now time.Duration) kvm.PIT {
	for i := range p.Channels {
		c := &p.Channels[i]
		once := c.Mode == pitOnTerminal || c.Mode == pitOneShot || c.Mode == pitSoftware
		if !once || c.CountLoadTime == 0 {
			continue
		}
		gone := int64(now) - c.CountLoadTime
		ticks := gone/1e9*pitHz + gone%1e9*pitHz/1e9
		c.Count = uint32(max(int64(c.Count)-ticks, 1))
	}
	return p
}

// pitRan reports whether p must be set after a pause: a one-shot channel had not
// finished, or the clock's channel had ticks that KVM makes up for. Setting it begins
// a new period, so a pause shorter than a period must not set it.
func pitRan(p *kvm.PIT, pause time.Duration) bool {
	once := p.Channels[2].Mode == pitOnTerminal && p.Channels[2].Gate != 0 && p.Channels[2].Count > 1
	clock := p.Channels[0]
	periodic := clock.Mode == pitRate || clock.Mode == pitSquare
	return once || periodic && pause >= time.Duration(clock.Count)*time.Second/pitHz
}

// monotonic returns the host's CLOCK_MONOTONIC, which KVM uses.
func monotonic() time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it does not fail
	return time.Duration(now.Nano())
}

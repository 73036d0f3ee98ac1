package machine

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"vmm/kvm"
)

// Registers of the local APIC's timer (SDM vol. 3A, 11.5.4): offsets into its page, and
// what LVT says of the mode.
const (
	apicLVTTimer     = 0x320
	apicInitialCount = 0x380
	apicCurrentCount = 0x390

	timerModes       = 3 << 17
	timerTSCDeadline = 2 << 17
)

// Model-specific registers that are about time, SDM vol. 4.
const (
	msrTSC         = 0x10
	msrTSCDeadline = 0x6e0
)

// timer is that of a vCPU's local APIC.
type timer struct {
	Deadline uint64 // of the time-stamp counter; 0: it does not run in that mode
	Current  uint32 // what is left of its count; 0: likewise
}

// saveTimer reads the timer of a vCPU that has stopped.
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

// restore starts the timer again, if it ran. In the meantime it may have expired,
// which KVM then forgets. The counter of c is what it was, or held is false and a
// deadline stays where the counter comes to by itself.
//
// All else in the APIC stays as it is now: interrupts may have come since it was
// saved. None may come between reading and writing, so devices stand still.
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

// The 8254: its frequency in Hz, and the modes in which a channel counts down once
// or again and again.
const (
	pitHz                                  = 1_193_182
	pitOnTerminal, pitOneShot, pitSoftware = 0, 1, 4
	pitRate, pitSquare                     = 2, 3
)

// remaining returns p with counts of those channels that count down once, and for
// which KVM tells since when: what is left at now, as KVM starts them anew. One
// that is through stays so, which takes a last count of one.
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

// pitRan tells whether p has to be set after a pause: a channel that counts down
// once was not through, or the clock's has had ticks that KVM makes up for. To
// set it begins a period anew, so that pauses shorter than one must not.
func pitRan(p *kvm.PIT, pause time.Duration) bool {
	once := p.Channels[2].Mode == pitOnTerminal && p.Channels[2].Gate != 0 && p.Channels[2].Count > 1
	clock := p.Channels[0]
	periodic := clock.Mode == pitRate || clock.Mode == pitSquare
	return once || periodic && pause >= time.Duration(clock.Count)*time.Second/pitHz
}

// monotonic returns the host's CLOCK_MONOTONIC, by which KVM counts.
func monotonic() time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it does not fail
	return time.Duration(now.Nano())
}

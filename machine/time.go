package machine

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"vmm/kvm"
)

// Time in a guest that stands still. KVM's clocks run whether or not a vCPU
// does: kvmclock and time-stamp counters by the host's, timers as hrtimers of
// the host's kernel. So they are read when the guest is stopped and set back
// before it goes on: to the guest no time has passed, and none of its watchdogs
// has a reason to bark. The real-time clock alone goes on (devices/pc), as one
// does that has a battery.

// timeVM is the part of *kvm.VM that has to do with time; tests bring their own.
type timeVM interface {
	Clock() (uint64, error)
	SetClock(ns uint64) error
	PIT() (kvm.PIT, error)
	SetPIT(kvm.PIT) error
}

// timeCPU is that of *kvm.VCPU.
type timeCPU interface {
	TSCKHz() (int, error)
	TSCOffset() (uint64, error)
	SetTSCOffset(uint64) error
	MSRs([]kvm.MSR) error
	SetMSRs([]kvm.MSR) error
	LAPIC() (*kvm.LAPIC, error)
	SetLAPIC(*kvm.LAPIC) error
	KVMClockCtrl() error
}

// guestTime is the time of a guest at the moment when it was stopped. It means
// the same on another host, or in another life.
type guestTime struct {
	Clock  uint64 // kvmclock, in ns
	TSCKHz uint64 // of all vCPUs; 0 if unknown
	CPUs   []cpuTime
	PIT    *kvm.PIT // nil: it is not to be set
}

// cpuTime is what each vCPU has of its own.
type cpuTime struct {
	TSC   uint64 // at Clock
	Timer timer
}

// errTSC says that the counters of a guest cannot be held.
var errTSC = errors.New("this host's KVM does not let a guest's time-stamp counter be set")

// saveTime reads the clocks of a machine whose vCPUs have stopped. timers are those
// of its vCPUs.
func saveTime(vm timeVM, cpus []timeCPU, timers []timer) (*guestTime, error) {
	t := &guestTime{CPUs: make([]cpuTime, len(cpus))}
	if khz, err := cpus[0].TSCKHz(); err == nil {
		t.TSCKHz = uint64(khz)
	}
	now, tsc, err := instant(vm, cpus[0])
	if err != nil {
		return nil, err
	}
	t.Clock = now
	zero, err := cpus[0].TSCOffset()
	for i, c := range cpus {
		t.CPUs[i] = cpuTime{TSC: tsc, Timer: timers[i]}
		switch {
		case i == 0:
		case err == nil:
			if offset, err := c.TSCOffset(); err == nil {
				t.CPUs[i].TSC += offset - zero
			}
		default:
			t.CPUs[i].TSC = t.step(c, tsc)
		}
	}
	pit, err := vm.PIT()
	if err == nil {
		pit = remaining(pit, monotonic())
		t.PIT = &pit
	}
	return t, err
}

// step returns the counter of c at the time when that of the first vCPU was tsc, for
// Linux before 5.16. Two counters that are read one after the other always differ;
// within a second they are in step to KVM as well (kvm_synchronize_tsc).
func (t *guestTime) step(c timeCPU, tsc uint64) uint64 {
	m := []kvm.MSR{{Index: msrTSC}}
	if c.MSRs(m) == nil && far(m[0].Data-tsc, t.TSCKHz) {
		return m[0].Data
	}
	return tsc
}

// restore sets the clocks of a machine, whose vCPUs stand still, to t: first what
// others count by, then timers, and of these what is a time of the counter
// after the counter. What cannot be set runs on; the error says so.
func (t *guestTime) restore(vm timeVM, cpus []timeCPU) error {
	if err := vm.SetClock(t.Clock); err != nil {
		return err // then all of it runs on, or clocks would differ
	}
	err := t.restoreTSC(vm, cpus)
	held := err == nil
	for i, c := range cpus {
		if e := t.CPUs[i].Timer.restore(c, held); e != nil && err == nil {
			err = fmt.Errorf("vCPU %d: %w", i, e)
		}
	}
	if t.PIT != nil {
		err = errors.Join(err, vm.SetPIT(*t.PIT))
	}
	for _, c := range cpus {
		c.KVMClockCtrl() // EINVAL: a guest without kvmclock
	}
	return err
}

// restoreTSC has each counter go on from where it was, and from then on together
// with kvmclock: Linux watches one by the other.
func (t *guestTime) restoreTSC(vm timeVM, cpus []timeCPU) error {
	now, tsc, err := instant(vm, cpus[0])
	if err != nil {
		return err
	}
	gone := cycles(now-t.Clock, t.TSCKHz) // since kvmclock was set
	zero, err := cpus[0].TSCOffset()
	if err != nil {
		return t.writeTSC(cpus, gone)
	}
	host := tsc - zero // the host's counter, as the guest's is scaled, at that instant
	for i, c := range cpus {
		before, err := c.TSCOffset()
		if err != nil {
			return err
		}
		offset := t.CPUs[i].TSC + gone - host
		if err := c.SetTSCOffset(offset); err != nil {
			return err
		}
		// A KVM without offsets takes them and does nothing. (Where the host's
		// counter is unstable, they change by themselves.)
		if after, err := c.TSCOffset(); err != nil || after == before && after != offset {
			return errTSC
		}
	}
	return nil
}

// writeTSC is restoreTSC for Linux before 5.16, which takes a write within a second
// of what the counter has for a wish that vCPUs be in step, and changes nothing. So the first
// vCPU goes far away first; those that follow within a second of it are then in step with it.
func (t *guestTime) writeTSC(cpus []timeCPU, gone uint64) error {
	const away = 1 << 62
	for i, c := range cpus {
		tsc := kvm.MSR{Index: msrTSC, Data: t.CPUs[i].TSC + gone}
		list := []kvm.MSR{tsc}
		if i == 0 {
			list = []kvm.MSR{{Index: msrTSC, Data: tsc.Data + away}, tsc}
		}
		if err := c.SetMSRs(list); err != nil {
			return err
		}
		got := []kvm.MSR{{Index: msrTSC}}
		if err := c.MSRs(got); err != nil || far(got[0].Data-tsc.Data, t.TSCKHz) {
			return errTSC
		}
	}
	return nil
}

// far tells whether two readings of a counter differ by more than a second.
func far(d, khz uint64) bool {
	limit := int64(cmp.Or(khz, 1_000_000)) * 1000
	return int64(d) > limit || int64(d) < -limit
}

// instant reads kvmclock and a vCPU's counter at one moment: in the middle between
// two readings of the clock, of a few tries the one where these are closest.
func instant(vm timeVM, c timeCPU) (clock, tsc uint64, err error) {
	const tries, near = 3, uint64(5 * time.Microsecond)
	best := ^uint64(0)
	for range tries {
		m := []kvm.MSR{{Index: msrTSC}}
		before, err := vm.Clock()
		if err != nil {
			return 0, 0, err
		}
		if err := c.MSRs(m); err != nil {
			return 0, 0, err
		}
		after, err := vm.Clock()
		if err != nil {
			return 0, 0, err
		}
		if width := after - before; width < best {
			best, clock, tsc = width, before+width/2, m[0].Data
		}
		if best <= near {
			break
		}
	}
	return clock, tsc, nil
}

// freeze reads the clocks once all vCPUs have stopped, and each has saved its
// timer. m.mu is held.
func (m *Machine) freeze() {
	timers := make([]timer, len(m.vcpus))
	errs := make([]error, len(m.vcpus)+1)
	for i, v := range m.vcpus {
		timers[i], errs[i] = v.timer, v.timerErr
	}
	m.since = time.Now()
	m.time, errs[len(m.vcpus)] = saveTime(m.vm, m.timeCPUs(), timers)
	if err := errors.Join(errs...); err != nil {
		m.runsOn(err)
	}
}

// thaw sets the clocks back to where they were; no vCPU and no device runs. m.mu
// is held.
func (m *Machine) thaw() {
	t := m.time
	if m.time = nil; t == nil {
		return
	}
	if t.PIT != nil && !pitRan(t.PIT, time.Since(m.since)) {
		t.PIT = nil
	}
	if err := t.restore(m.vm, m.timeCPUs()); err != nil {
		m.runsOn(err)
	}
}

// runsOn says, once, that there are clocks in the guest that did not stand still.
func (m *Machine) runsOn(err error) {
	if !m.timeLogged {
		m.log.Warn("time runs on in a guest that is paused", "err", err)
	}
	m.timeLogged = true
}

func (m *Machine) timeCPUs() []timeCPU {
	cpus := make([]timeCPU, len(m.kcpus))
	for i, c := range m.kcpus {
		cpus[i] = c
	}
	return cpus
}

// cycles is how far a counter of so many kHz goes in ns.
func cycles(ns, khz uint64) uint64 { return ns/1e6*khz + ns%1e6*khz/1e6 }

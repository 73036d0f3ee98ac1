package machine

import (
	"cmp"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"vmm/kvm"
	"vmm/task"
)

// Time in a paused guest. KVM's clocks run whether or not a vCPU does: kvmclock and
// time-stamp counters follow the host's, timers are hrtimers of the host's kernel. So
// they are read when the guest is stopped and set back before it continues: for the
// guest no time has passed, and its watchdogs do not fire. Only the real-time clock
// continues (devices/pc), like one with a battery.

// timeVM is the part of *kvm.VM for time; tests supply their own.
type timeVM interface {
	Clock() (uint64, error)
	SetClock(ns uint64) error
	PIT() (kvm.PIT, error)
	SetPIT(kvm.PIT) error
}

// timeCPU is the same part of *kvm.VCPU.
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

// guestTime is the time of a guest at the moment it was stopped. It has the same
// meaning on another host or in another machine.
type guestTime struct {
	Clock  uint64 // kvmclock, in ns
	TSCKHz uint64 // of all vCPUs; 0 if unknown
	CPUs   []cpuTime
	PIT    *kvm.PIT // nil: not to be set
}

// cpuTime is the time state of one vCPU.
type cpuTime struct {
	TSC   uint64 // at Clock
	Timer timer
}

// errTSC says that the TSCs of a guest cannot be held.
var errTSC = errors.New("this host's KVM does not let a guest's time-stamp counter be set")

// halted is what a vCPU's thread reads as soon as the vCPU has stopped.
type halted struct {
	timer  timer
	offset uint64 // TSC offset
	old    bool   // Linux before 5.16: no offset
	loose  bool   // the offset changes by itself
}

func haltCPU(c timeCPU) (h halted, err error) {
	h.offset, err = c.TSCOffset()
	h.old = err != nil
	again, err := c.TSCOffset()
	h.loose = err == nil && again != h.offset
	h.timer, err = saveTimer(c)
	return h, err
}

// saveTime reads the clocks of a machine whose vCPUs have stopped. It runs on the
// thread of vCPU self; reading another vCPU's state there is expensive.
func saveTime(vm timeVM, cpus []timeCPU, halts []halted, self int) (*guestTime, error) {
	t := &guestTime{CPUs: make([]cpuTime, len(cpus))}
	if khz, err := cpus[self].TSCKHz(); err == nil {
		t.TSCKHz = uint64(khz)
	}
	now, tsc, err := instant(vm, cpus[self])
	if err != nil {
		return nil, err
	}
	t.Clock = now
	for i, h := range halts {
		t.CPUs[i] = cpuTime{TSC: tsc + h.offset - halts[self].offset, Timer: h.timer}
		if h.old && i != self {
			t.CPUs[i].TSC = t.step(cpus[i], tsc)
		}
	}
	if slices.ContainsFunc(halts, func(h halted) bool { return h.loose }) {
		t.inStep(cpus, tsc)
	}
	pit, err := vm.PIT()
	if err == nil {
		pit = remaining(pit, monotonic())
		t.PIT = &pit
	}
	return t, err
}

// inStep is for a host with an unstable TSC. There, KVM shows a counter that stands
// where its vCPU last left the guest, and advances it when the vCPU enters. So no
// counter has its current value; the greatest is at least what any vCPU has seen.
func (t *guestTime) inStep(cpus []timeCPU, tsc uint64) {
	for _, c := range cpus {
		m := []kvm.MSR{{Index: msrTSC}}
		if c.MSRs(m) == nil && int64(m[0].Data-tsc) > 0 {
			tsc = m[0].Data
		}
	}
	for i := range t.CPUs {
		t.CPUs[i].TSC = tsc
	}
}

// step returns the counter of c at the time when that of another vCPU was tsc, for
// Linux before 5.16. Two counters read one after the other always differ; if they
// differ by less than a second, KVM also treats them as synchronized
// (kvm_synchronize_tsc).
func (t *guestTime) step(c timeCPU, tsc uint64) uint64 {
	m := []kvm.MSR{{Index: msrTSC}}
	if c.MSRs(m) == nil && far(m[0].Data-tsc, t.TSCKHz) {
		return m[0].Data
	}
	return tsc
}

// restore sets the clocks of a machine whose vCPUs are stopped to t: first the clocks
// that others depend on, then timers. A timer that expires at a TSC value is set after
// the TSC. A clock that cannot be set runs on; the error says so. on runs a function
// on the thread of a vCPU.
func (t *guestTime) restore(vm timeVM, cpus []timeCPU, on func(id int, f func() error) error) error {
	var n now
	errs := make([]error, len(cpus)+1)
	errs[0] = on(0, func() (err error) {
		if n, err = t.restoreClock(vm, cpus[0]); err != nil {
			return err
		}
		return t.restoreCPU(0, cpus[0], n)
	})
	if !n.set {
		wereStopped(cpus) // everything runs on, or the clocks would differ
		return errs[0]
	}
	task.Each(len(cpus)-1, func(i int) {
		errs[i+1] = on(i+1, func() error { return t.restoreCPU(i+1, cpus[i+1], n) })
	})
	if t.PIT != nil {
		errs[len(cpus)] = vm.SetPIT(*t.PIT)
	}
	return first(errs)
}

// wereStopped tells the guest that its vCPUs were stopped, for its watchdogs: its time
// may have run on.
func wereStopped(cpus []timeCPU) {
	for _, c := range cpus {
		c.KVMClockCtrl() // EINVAL: a guest without kvmclock
	}
}

// first returns the first error.
func first(errs []error) error { return cmp.Or(errs...) }

// now is the moment from which the clocks continue.
type now struct {
	set  bool   // kvmclock is set
	gone uint64 // TSC cycles since then
	host uint64 // the host's TSC, scaled like the guest's; not if old
	old  bool   // there are no offsets
}

// restoreClock restarts kvmclock, and returns how far the TSCs must advance.
func (t *guestTime) restoreClock(vm timeVM, c timeCPU) (n now, err error) {
	if err := vm.SetClock(t.Clock); err != nil {
		return n, err
	}
	clock, tsc, err := instant(vm, c)
	if err != nil {
		return n, err
	}
	n.set, n.gone = true, cycles(clock-t.Clock, t.TSCKHz)
	offset, err := c.TSCOffset()
	n.old, n.host = err != nil, tsc-offset
	return n, nil
}

// restoreCPU restarts a vCPU's TSC from where it was, and keeps it in step with
// kvmclock, because Linux checks one against the other. Then it restores the timer.
func (t *guestTime) restoreCPU(id int, c timeCPU, n now) error {
	tsc := t.CPUs[id].TSC + n.gone
	var err error
	if n.old {
		err = writeTSC(c, tsc, id == 0, t.TSCKHz)
	} else {
		err = setTSC(c, tsc-n.host)
	}
	err = cmp.Or(err, t.CPUs[id].Timer.restore(c, err == nil))
	wereStopped([]timeCPU{c})
	return err
}

func setTSC(c timeCPU, offset uint64) error {
	before, err := c.TSCOffset()
	if err != nil {
		return err
	}
	if err := c.SetTSCOffset(offset); err != nil {
		return err
	}
	// A KVM without offsets accepts them and does nothing. (If the host's TSC is
	// unstable, they change by themselves.)
	if after, err := c.TSCOffset(); err != nil || after == before && after != offset {
		return errTSC
	}
	return nil
}

// writeTSC is setTSC for Linux before 5.16. That treats a write within a second of the
// counter's value as a request to synchronize vCPUs, and changes nothing. So the first
// vCPU's counter is first set far away; later writes within a second of the first are
// then synchronized with it.
func writeTSC(c timeCPU, tsc uint64, first bool, khz uint64) error {
	const away = 1 << 62
	list := []kvm.MSR{{Index: msrTSC, Data: tsc}}
	if first {
		list = []kvm.MSR{{Index: msrTSC, Data: tsc + away}, list[0]}
	}
	if err := c.SetMSRs(list); err != nil {
		return err
	}
	got := []kvm.MSR{{Index: msrTSC}}
	if err := c.MSRs(got); err != nil || far(got[0].Data-tsc, khz) {
		return errTSC
	}
	return nil
}

// far reports whether two readings of a counter differ by more than a second.
func far(d, khz uint64) bool {
	limit := int64(cmp.Or(khz, 1_000_000)) * 1000
	return int64(d) > limit || int64(d) < -limit
}

// instant reads kvmclock and a vCPU's TSC at one moment: the midpoint between two
// readings of the clock. Of a few tries it takes the one whose readings are closest.
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

// stops is what vCPUs read as they stop; the last vCPU to stop reads the clocks.
type stops struct {
	run   atomic.Int32 // vCPUs still running
	halts []halted
	errs  []error // the last one is the clocks'
	time  *guestTime
}

// expectStops is called before vCPUs are paused. m.mu is held.
func (m *Machine) expectStops() {
	n := len(m.vcpus)
	m.stops = &stops{halts: make([]halted, n), errs: make([]error, n+1)}
	m.stops.run.Store(int32(n))
}

// stopped is called on the thread of a vCPU that is being paused.
func (m *Machine) stopped(id int) {
	s := m.stops
	s.halts[id], s.errs[id] = haltCPU(m.kcpus[id])
	if s.run.Add(-1) == 0 {
		s.time, s.errs[len(s.halts)] = saveTime(m.vm, m.timeCPUs(), s.halts, id)
	}
}

// freeze takes what the vCPUs have read, after all have stopped. m.mu is held.
func (m *Machine) freeze() {
	m.since, m.time = time.Now(), m.stops.time
	m.runsOn(first(m.stops.errs))
}

// thaw sets the clocks back to where they were. No vCPU and no device runs. m.mu is
// held.
func (m *Machine) thaw() {
	t := m.time
	if m.time = nil; t == nil {
		wereStopped(m.timeCPUs())
		return
	}
	if t.PIT != nil && !pitRan(t.PIT, time.Since(m.since)) {
		t.PIT = nil
	}
	m.runsOn(t.restore(m.vm, m.timeCPUs(), func(id int, f func() error) error { return m.vcpus[id].do(f) }))
}

// runsOn logs, once, that some clocks in the guest did not stand still.
func (m *Machine) runsOn(err error) {
	if err == nil || m.timeLogged || errors.Is(err, errEnded) {
		return
	}
	m.log.Warn("time runs on in a guest that is paused", "err", err)
	m.timeLogged = true
}

func (m *Machine) timeCPUs() []timeCPU {
	cpus := make([]timeCPU, len(m.kcpus))
	for i, c := range m.kcpus {
		cpus[i] = c
	}
	return cpus
}

// cycles is the number of cycles of a counter at khz kHz in ns nanoseconds.
func cycles(ns, khz uint64) uint64 { return ns/1e6*khz + ns%1e6*khz/1e6 }

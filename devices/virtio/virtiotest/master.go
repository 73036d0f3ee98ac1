package virtiotest

import "runtime"

var masterChecks = []check{
	{"bus mastering off", onlyPCI(checkMasterOff)},
	{"bus mastering off at the start", onlyPCI(checkMasterStart)},
	{"bus mastering off, slow", onlyPCI(checkMasterSlow)},
	{"bus mastering off while paused and restored", onlyPCI(checkMasterPause)},
	{"bus mastering is toggled", onlyPCI(checkMasterToggle)},
}

func onlyPCI(do func(*suite)) func(*suite) {
	return func(s *suite) {
		if s.kind == MMIO {
			s.Skip("there is no such bit")
		}
		do(s)
	}
}

func (s *suite) master(on bool) { s.d.BusMaster(on) }

// BusMaster sets or clears that bit of a PCI device's Command (PCI 3.0 §6.2.2).
func (d *Driver) BusMaster(on bool) {
	p := d.pci()
	command := p.cfg(cfgCommand, 2) &^ commandMaster
	if on {
		command |= commandMaster
	}
	p.setCfg(cfgCommand, 2, command)
}

// quiet does what should have no effect. It checks that only the bystander writes to
// RAM, and that there is no interrupt.
func (s *suite) quiet(do func()) {
	s.Helper()
	do()
	d := s.d
	count := func() (n int64) {
		n = d.Slot.Line.Count()
		for _, v := range d.Slot.Vectors {
			n += v.Count()
		}
		return n
	}
	before := count()
	g := s.board.guard([]span{{s.other.rings.addr, uint64(s.other.buffers.end - s.other.rings.addr)}})
	for range 3 {
		for _, q := range s.driven() {
			q.Notify()
		}
		s.bystander()
	}
	if err := g.check(); err != nil {
		s.Errorf("bus mastering is off: %v", err)
	}
	if n := count() - before; n != 0 {
		s.Errorf("%d interrupts while bus mastering is off", n)
	}
}

// checkMasterOff: requests submitted while bus mastering is off are answered, without
// a kick, when it is on again.
func checkMasterOff(s *suite) {
	for _, features := range []uint64{0, 1 << 28, 1 << 29} { // INDIRECT_DESC, EVENT_IDX
		setup := s.setupWith(features)
		setup.Indirect = features == 1<<28
		s.d.Start(setup)
		for n := range 3 {
			s.answers(n)
			s.drained()
			s.master(false)
			want := map[*Queue]int{}
			s.quiet(func() {
				for _, q := range s.driven() {
					for range n + 1 {
						q.Submit(s.request(q.index))
					}
					want[q] = q.Done + len(q.flight)
				}
			})
			s.master(true)
			for q, n := range want {
				q.Poll(n)
			}
			s.cases++
		}
		s.answers(2)
	}
}

// checkMasterStart starts and resets the device with bus mastering off.
func checkMasterStart(s *suite) {
	for _, reset := range []bool{false, true} {
		s.d.reset()
		s.master(false)
		s.d.Start(s.setup())
		s.quiet(func() {
			for _, q := range s.driven() {
				q.Submit(s.request(q.index))
			}
		})
		if reset {
			s.quiet(s.d.reset)
			s.d.Start(s.setup())
		}
		s.master(true)
		for _, q := range s.driven() {
			q.Poll(len(q.flight))
		}
		s.answers(2)
		s.cases++
	}
}

// owing leaves a request in the device when bus mastering ends; the host answers it
// afterwards. The driver must not be told.
func (s *suite) owing() *Queue {
	s.Helper()
	s.d.Start(s.setup())
	q, release := s.stuck()
	s.master(false)
	release()
	until(s, "an answer of the host", func() bool { return s.target.Busy(s.d.Slot.Device) == 0 })
	s.bystander()
	if q.Collect() != 0 {
		s.Error("a request is used while bus mastering is off")
	}
	return q
}

// checkMasterSlow: a request that was in the device is used once bus mastering is on
// again, or never if the device is reset.
func checkMasterSlow(s *suite) {
	for range 3 {
		q := s.owing()
		s.master(true)
		q.Poll(1)
		s.answers(2)
		s.cases++
	}
	q := s.owing()
	s.d.Set(Status, 0)
	s.d.until("the end of the reset", func() bool { return s.d.Get(Status) == 0 })
	s.master(true)
	s.bystander()
	if q.Collect() != 0 {
		s.Error("a request is used after the reset")
	}
}

// checkMasterPause is checkMasterSlow across a pause and a restore.
func checkMasterPause(s *suite) {
	for _, again := range []func(){s.pause, s.restore} {
		q := s.owing()
		again()
		q.Submit(s.request(q.index))
		s.quiet(func() {})
		again()
		if q.Collect() != 0 {
			s.Error("a request is used while bus mastering is off")
		}
		s.master(true)
		q.Poll(2)
		s.answers(2)
		s.cases++
	}
}

// checkMasterToggle keeps turning bus mastering off and on: no request is lost or
// comes twice.
func checkMasterToggle(s *suite) {
	s.d.Start(s.setup())
	stop := make(chan struct{})
	r := s.stream(stop, nil)
	defer r.wait()
	for i := 0; i < 300 || r.count() < 30; i++ {
		s.master(false)
		if i%3 == 0 {
			runtime.Gosched()
		}
		s.master(true)
		if i%2 == 0 {
			runtime.Gosched()
		}
	}
	close(stop)
	r.wait()
	for _, q := range s.driven() {
		q.Poll(q.Done + len(q.flight))
	}
	s.answers(2)
}

package virtiotest

import "vmm/devices/virtio"

var interruptChecks = []check{
	{"one interrupt a request", checkEach},
	{"no interrupts", checkNone},
	{"EVENT_IDX", checkEvent},
	{"ISR", checkISR},
	{"configuration change", checkConfigChange},
	{"masked vectors", onlyMSIX(checkMasked)},
	{"shared vector", onlyMSIX(checkShared)},
	{"NO_VECTOR", onlyMSIX(checkNoVector)},
	{"INTx disabled", checkINTxDisabled},
}

func onlyMSIX(do func(*suite)) func(*suite) {
	return func(s *suite) {
		if s.kind != MSIX {
			s.Skip("no vectors")
		}
		do(s)
	}
}

// one makes q answer one request, and handles no interrupt.
func (s *suite) one(q *Queue) {
	s.Helper()
	q.Submit(s.request(q.index))
	q.Kick()
	q.Poll(q.Done + 1)
}

// counted waits until n signals have come since before, then resets the device. After
// that no more may come.
func (s *suite) counted(c *Signals, before, n int64) {
	s.Helper()
	s.d.until("interrupts", func() bool { return c.Count()-before >= n })
	s.d.Set(Status, 0)
	s.d.until("the end of the reset", func() bool { return s.d.Get(Status) == 0 })
	if got := c.Count() - before; got != n {
		s.Errorf("%d interrupts, want %d", got, n)
	}
}

// checkEach: a driver that asks for nothing special gets an interrupt for each
// request; on a line, one for all until it reads ISR.
func checkEach(s *suite) {
	for i := range len(s.d.Sizes) {
		s.d.Start(s.setup())
		q := s.d.Queues[i]
		if s.target.Request(i, 0).Check == nil {
			continue
		}
		c := s.d.access.signals(i)
		before := c.Count()
		for n := range 5 {
			s.one(q)
			if s.kind == INTx {
				s.d.until("the line", func() bool { return c.Count() > before+int64(n) })
				if s.d.access.handle() != 1 {
					s.Error("ISR is not 1")
				}
			}
		}
		s.counted(c, before, 5)
		s.d.reset()
	}
}

// checkNone: NO_INTERRUPT, DISABLE, and a distant used_event.
func checkNone(s *suite) {
	for _, features := range []uint64{0, virtio.FeatureEventIdx} {
		s.d.Start(s.setupWith(features))
		for _, q := range s.driven() {
			c := s.d.access.signals(q.index)
			before := c.Count()
			q.ring.ignore()
			for range 5 {
				s.one(q)
			}
			s.bystanderIdle()
			if got := c.Count() - before; got != 0 {
				s.Errorf("%d interrupts that were not wanted", got)
			}
			q.ring.listen(0)
			s.one(q)
			s.d.until("an interrupt again", func() bool { return c.Count()-before == 1 })
			s.d.access.handle()
		}
	}
}

// checkEvent: the interrupt comes once as many chains are used as the driver asked
// for.
func checkEvent(s *suite) {
	for later := range uint16(5) {
		setup := s.setupWith(virtio.FeatureEventIdx | virtio.FeatureIndirectDesc)
		setup.Indirect = true // a chain is one descriptor
		s.d.Start(setup)
		q := s.driven()[0]
		for range 13 { // so that it crosses the ring's end
			s.one(q)
			s.d.access.handle()
		}
		q.ring.ignore()
		s.one(q)
		s.drained()
		c := s.d.access.signals(q.index)
		before := c.Count()
		q.ring.listen(later)
		for range later {
			s.one(q)
			s.bystanderIdle()
		}
		if got := c.Count() - before; got != 0 {
			s.Errorf("%d interrupts before the %dth chain", got, later+1)
		}
		s.one(q)
		s.one(q)
		s.one(q)
		s.counted(c, before, 1)
		s.d.reset()
	}
}

// drained returns once all interrupts for used buffers have been made: a pause waits
// for them, and Resume makes one more for each queue.
func (s *suite) drained() {
	s.Helper()
	s.d.Slot.Release()
	s.board.must(s.d.Slot.Pause(Deadline))
	s.d.Slot.Resume()
	s.d.access.handle()
}

// checkISR: the bit stays until it is read (PCI, §4.1.4.5) or acknowledged
// (MMIO, §4.2.2), and so does the line.
func checkISR(s *suite) {
	if s.kind == MSIX {
		s.Skip("ISR is not used")
	}
	s.d.Start(s.setup())
	line := s.d.Slot.Line
	for _, q := range s.driven() {
		c := s.d.access.signals(q.index)
		before := c.Count()
		s.one(q)
		s.d.until("an interrupt", func() bool { return c.Count() > before })
		if s.kind == INTx {
			if !line.High() {
				s.Error("the line is low while ISR is set")
			}
			if got := s.d.pci().cfg(cfgStatus, 2); got>>3&1 != 1 {
				s.Error("Interrupt Status is not set")
			}
			if v := s.d.Get(ISR); v != 1 || line.High() {
				s.Errorf("ISR %#x, line %v", v, line.High())
			}
			if v := s.d.Get(ISR); v != 0 {
				s.Errorf("ISR is %#x after it was read", v)
			}
			continue
		}
		for _, step := range []struct{ ack, want uint32 }{{0, 1}, {2, 1}, {0xfffffffe, 1}, {1, 0}, {1, 0}} {
			if s.d.Set(InterruptACK, step.ack); s.d.Get(ISR) != step.want {
				s.Errorf("InterruptStatus %#x after ACK %#x, want %#x", s.d.Get(ISR), step.ack, step.want)
			}
		}
	}
}

// checkConfigChange: NEEDS_RESET comes with a configuration interrupt, §2.1.2, and
// bit 1 of ISR.
func checkConfigChange(s *suite) {
	s.d.Start(s.setup())
	c := s.d.access.signals(-1)
	before := c.Count()
	q := s.driven()[0] // the device need not take anything from other queues
	q.ring.raw([]desc{{addr: 0xdead_0000_0000, n: 4, flags: flagWrite}})
	q.Notify()
	s.d.until("an interrupt", func() bool { return c.Count() > before })
	if s.d.Get(Status)&needsReset == 0 {
		s.Error("an interrupt before NEEDS_RESET")
	}
	if s.kind != MSIX {
		if v := s.d.access.handle(); v != 2 {
			s.Errorf("ISR %#x", v)
		}
	}
	for _, q := range s.d.Queues { // once, whatever else breaks
		q.ring.raw([]desc{{addr: 0xdead_0000_0000, n: 4, flags: flagWrite}})
		q.Notify()
	}
	s.bystander()
	s.drained() // makes up for interrupts that may have been lost
	s.counted(c, before, 2)
}

// checkMasked: interrupts that come while a vector is masked are pending, and come
// once when it is unmasked.
func checkMasked(s *suite) {
	p := s.d.pci()
	for _, function := range []bool{false, true} {
		s.d.Start(s.setup())
		set := func(i int, on bool) {
			switch {
			case !function:
				p.mask(i, on)
			case on:
				p.setCfg(p.msixCap+2, 2, msixEnable|msixMask)
			default:
				p.setCfg(p.msixCap+2, 2, msixEnable)
			}
		}
		for _, q := range s.driven() {
			c := s.d.access.signals(q.index)
			before := c.Count()
			set(q.index, true)
			s.one(q)
			s.one(q)
			s.d.until("a pending vector", func() bool { return p.pending(q.index) })
			s.one(q)
			if c.Count() != before {
				s.Error("an interrupt by a masked vector")
			}
			set(q.index, false)
			if got := c.Count() - before; got != 1 && got != 2 { // the last may come after
				s.Errorf("%d interrupts by unmasking", got)
			}
			if p.pending(q.index) {
				s.Error("still pending")
			}
		}
	}
}

func checkShared(s *suite) {
	setup := s.setup()
	setup.Shared = true
	s.d.Start(setup)
	s.answers(5)
	for i, v := range s.d.Slot.Vectors[1:] {
		before := v.Count()
		s.answers(1)
		if v.Count() != before {
			s.Errorf("an interrupt by vector %d", i+1)
		}
	}
}

// checkNoVector: requests are answered without interrupts.
func checkNoVector(s *suite) {
	setup := s.setup()
	setup.Silent = true
	s.d.Start(setup)
	var before int64
	for _, v := range s.d.Slot.Vectors {
		before += v.Count()
	}
	for _, q := range s.driven() {
		for range 3 {
			s.one(q)
		}
	}
	s.d.reset()
	for _, v := range s.d.Slot.Vectors {
		before -= v.Count()
	}
	if before != 0 {
		s.Errorf("%d interrupts without a vector", -before)
	}
}

// checkINTxDisabled: the pin is disconnected, and ISR continues to work.
func checkINTxDisabled(s *suite) {
	if s.kind != INTx {
		s.Skip("no INTx")
	}
	s.d.Start(s.setup())
	p, q := s.d.pci(), s.driven()[0]
	p.setCfg(cfgCommand, 2, commandMemory|commandMaster|commandINTxDisable)
	before := s.d.Slot.Line.Count()
	s.one(q)
	s.d.until("Interrupt Status", func() bool { return p.cfg(cfgStatus, 2)>>3&1 == 1 })
	if s.d.Slot.Line.Count() != before {
		s.Error("an interrupt by a pin that is disabled")
	}
	p.setCfg(cfgCommand, 2, commandMemory|commandMaster)
	if s.d.Slot.Line.Count() != before+1 {
		s.Error("no interrupt by the pin that is enabled again")
	}
	if v := s.d.Get(ISR); v != 1 || s.d.Slot.Line.High() {
		s.Errorf("ISR %#x, line %v", v, s.d.Slot.Line.High())
	}
}

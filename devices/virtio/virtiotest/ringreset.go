package virtiotest

import "vmm/devices/virtio"

var ringResetChecks = []check{
	{"ring reset", checkRingReset},
	{"ring reset, slow", checkRingResetSlow},
	{"ring reset, not negotiated", checkRingResetRefused},
	{"queue not ready", checkNotReady},
}

// resetQueue resets one queue, §2.6.1.
func (s *suite) resetQueue(q *Queue) {
	s.Helper()
	d := s.d
	d.Set(QueueSelect, uint32(q.index))
	d.Set(QueueReset, 1)
	d.until("the end of the queue's reset", func() bool {
		d.Set(QueueSelect, uint32(q.index))
		return d.Get(QueueReset) == 0
	})
	s.queueIsReset(q.index)
}

// again sets up a queue anew, with other rings.
func (s *suite) again(old *Queue) *Queue {
	s.Helper()
	i := old.index
	q := s.d.newQueue(i, old.Layout.Size, s.ringFeature()|virtio.FeatureRingReset, s.setup())
	s.d.Queues = s.d.Queues[:len(s.d.Queues)-1]
	s.d.Queues[i] = q
	q.place()
	q.enable()
	return q
}

// checkRingReset resets one queue after the other while the others work.
func checkRingReset(s *suite) {
	setup := s.setupWith(virtio.FeatureRingReset)
	s.d.Start(setup)
	for range 3 {
		for _, q := range s.driven() {
			s.answers(3)
			s.resetQueue(q)
			for _, other := range s.driven() {
				if other != q {
					t := other.Submit(s.request(other.index))
					other.Kick()
					other.Wait(t)
				}
			}
			q.Submit(s.request(q.index)) // to a queue that does not exist
			q.Notify()
			s.bystanderIdle()
			s.again(q)
			s.answers(3)
			s.cases++
		}
	}
	// Before DRIVER_OK, twice, and of all.
	s.d.reset()
	steps := s.d.steps(setup)
	for _, step := range steps[:len(steps)-1] {
		step.do()
	}
	for _, q := range append([]*Queue(nil), s.d.Queues...) {
		s.resetQueue(q)
		s.resetQueue(q)
		s.again(q)
	}
	s.d.Set(Status, 15)
	s.answers(2)
}

// checkRingResetSlow: queue_reset reads 1 until the host has answered.
func checkRingResetSlow(s *suite) {
	d := s.d
	d.Start(s.setupWith(virtio.FeatureRingReset))
	q, release := s.stuck()
	written := make(chan struct{})
	go func() {
		defer close(written)
		d.Set(QueueReset, 1) // MMIO's waits
	}()
	d.until("a reset under way", func() bool { return d.Get(QueueReset) == 1 })
	for range 20 {
		if d.Get(QueueReset) != 1 || d.Get(QueueEnable) != 1 {
			s.Error("the queue's reset ends with a request under way")
		}
		s.bystander()
	}
	d.Set(QueueReset, 1) // again: harmless
	q.set(QueueDesc, 0xdead000)
	d.Set(QueueEnable, 1)
	release()
	<-written
	d.until("the end of the queue's reset", func() bool { return d.Get(QueueReset) == 0 })
	s.queueIsReset(q.index)
	if q.Collect() != 1 {
		s.Error("the request that was under way is not answered")
	}
	s.again(q)
	s.answers(2)

	// And the whole device, while a queue's reset is under way.
	_, release = s.stuck()
	both := make(chan struct{}, 2)
	go func() { d.Set(QueueReset, 1); both <- struct{}{} }()
	d.until("a reset under way", func() bool { return d.Get(QueueReset) == 1 })
	go func() { d.Set(Status, 0); both <- struct{}{} }()
	release()
	<-both
	<-both
	s.settle()
	s.works()
}

// checkRingResetRefused: without the feature, queue_reset does nothing.
func checkRingResetRefused(s *suite) {
	s.d.Start(s.setup())
	for _, q := range s.d.Queues {
		s.d.Set(QueueSelect, uint32(q.index))
		s.d.Set(QueueReset, 1)
		if s.d.Get(QueueReset) != 0 || s.d.Get(QueueEnable) != 1 {
			s.Error("a queue was reset without VIRTIO_F_RING_RESET")
		}
	}
	s.answers(2)
}

// checkNotReady: MMIO's driver stops a queue with QueueReady, §4.2.2.2. PCI's must
// not write 0 to queue_enable; if it does, nothing happens.
func checkNotReady(s *suite) {
	s.d.Start(s.setup())
	for _, q := range append([]*Queue(nil), s.driven()...) {
		s.d.Set(QueueSelect, uint32(q.index))
		s.d.Set(QueueEnable, 0)
		if s.kind != MMIO {
			if s.d.Get(QueueEnable) != 1 {
				s.Error("queue_enable was cleared")
			}
			continue
		}
		s.d.until("a queue that is not ready", func() bool { return s.d.Get(QueueEnable) == 0 })
		s.queueIsReset(q.index)
		s.again(q)
	}
	s.answers(2)
}

package virtiotest

import (
	"runtime"
	"sync"
	"sync/atomic"

	"vmm/devices/virtio"
)

var resetChecks = []check{
	{"reset at each step", checkResetSteps},
	{"reset with requests", checkResetRequests},
	{"reset of a slow device", checkResetSlow},
	{"reset from elsewhere", checkResetStreaming},
	{"reset during reset", checkResetTwice},
}

// checkResetSteps resets before and after each step of the initialization.
func checkResetSteps(s *suite) {
	s.d.reset()
	count := len(s.d.steps(s.setup()))
	for n := range count + 1 {
		s.d.reset()
		for _, step := range s.d.steps(s.setup())[:n] {
			step.do()
		}
		s.settle()
		s.works()
		s.cases++
	}
}

// checkResetRequests resets with requests that are available, kicked, and used.
// Anything used after the reset was used before it.
func checkResetRequests(s *suite) {
	for _, kick := range []bool{false, true} {
		for n := range 4 {
			s.d.Start(s.setup())
			var spans []span
			queues := s.driven()
			for _, q := range queues {
				for range min(n, q.ring.free()/2) {
					q.Submit(s.request(q.index))
				}
				spans = append(spans, q.given()...)
			}
			g := s.guard(spans)
			for _, q := range queues {
				if kick {
					q.Notify()
				}
			}
			s.settle()
			if err := g.check(); err != nil {
				s.Error(err)
			}
			for _, q := range queues {
				if q.Collect() > 0 && !kick && n == 0 {
					s.Error("used what was not available")
				}
			}
			g = s.guard(nil)
			s.bystanderIdle()
			if err := g.check(); err != nil {
				s.Errorf("after the reset: %v", err)
			}
			s.cases++
		}
	}
	s.works()
}

// bystanderIdle lets time pass: one register access of each device.
func (s *suite) bystanderIdle() {
	s.d.Get(Status)
	s.other.Get(Status)
}

// checkResetSlow: until a slow host has answered, status is not 0, and other
// registers answer promptly. Once it is 0, nothing more is written.
func checkResetSlow(s *suite) {
	release := s.hold()
	d := s.d
	d.Start(s.setup())
	n := 0
	for _, q := range s.driven() {
		q.Submit(s.request(q.index))
		q.Notify()
		n++
	}
	until(s, "requests in the device", func() bool { return s.target.Busy(d.Slot.Device) == n })
	written := make(chan struct{})
	go func() {
		defer close(written)
		d.Set(Status, 0) // MMIO's waits
	}()
	for range 100 {
		if got := d.Get(Status); got != 15 {
			s.Errorf("status %#x while requests are under way", got)
		}
		d.Set(QueueSelect, 0)
		d.Get(QueueEnable)
		s.bystander()
	}
	q := s.driven()[0]
	q.Notify()
	d.Set(QueueSelect, 0)
	q.set(QueueDesc, 0xdead000) // is dropped
	release()
	<-written
	d.until("the end of the reset", func() bool { return d.Get(Status) == 0 })
	g := s.guard(nil)
	s.isReset()
	for _, q := range s.driven() {
		if q.Collect() != 1 {
			s.Error("a request that was under way is not answered")
		}
	}
	if err := g.check(); err != nil {
		s.Error(err)
	}
}

// checkResetStreaming resets from another goroutine while requests stream.
func checkResetStreaming(s *suite) {
	for i := range 5 {
		s.d.Start(s.setup())
		stop := make(chan struct{})
		streamed := s.stream(stop, nil)
		s.d.until("some requests", func() bool { return streamed.count() >= 5*i })
		s.d.Set(Status, 0)
		s.d.until("the end of the reset", func() bool { return s.d.Get(Status) == 0 })
		g := s.guard(s.driverAreas())
		s.bystanderIdle()
		close(stop)
		streamed.wait()
		if err := g.check(); err != nil {
			s.Errorf("after a reset: %v", err)
		}
		s.settle()
	}
	s.works()
}

// A streamer submits requests to all queues as fast as they are answered, on its own
// goroutine. It submits up to mostStreamed, because a device may keep each, and has
// limited room for them (vsock owes the guest an answer to some).
type streamer struct {
	n  atomic.Int64
	wg sync.WaitGroup
}

const mostStreamed = 512

func (r *streamer) count() int { return int(r.n.Load()) }
func (r *streamer) wait()      { r.wg.Wait() }

// stream starts a streamer, which ends when stop is closed. It holds lock, if not
// nil, around each round.
func (s *suite) stream(stop <-chan struct{}, lock sync.Locker) *streamer {
	r := &streamer{}
	queues := s.driven()
	r.wg.Go(func() {
		for submitted := 0; ; {
			select {
			case <-stop:
				return
			default:
			}
			if lock != nil {
				lock.Lock()
			}
			for _, q := range queues {
				if len(q.flight) < 3 && q.Room(1) && submitted < mostStreamed {
					submitted++
					q.Submit(s.request(q.index))
					q.Kick()
				}
				r.n.Add(int64(q.Collect()))
			}
			if lock != nil {
				lock.Unlock()
			}
			runtime.Gosched()
		}
	})
	return r
}

// driverAreas returns what a streamer and the bystander's driver write.
func (s *suite) driverAreas() []span {
	return []span{{s.d.rings.addr, uint64(s.d.buffers.end - s.d.rings.addr)}, {s.other.rings.addr, uint64(s.other.buffers.end - s.other.rings.addr)}}
}

// checkResetTwice resets during a reset, from several goroutines, with kicks.
func checkResetTwice(s *suite) {
	for range 5 {
		s.d.Start(s.setup())
		queues := s.driven()
		for _, q := range queues {
			q.Submit(s.request(q.index))
		}
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for range 10 {
					for _, q := range queues {
						q.Notify()
					}
					if i < 2 {
						s.d.Set(Status, 0)
					} else {
						s.d.Get(Status)
						s.d.Set(Status, virtio.StatusAcknowledge)
					}
				}
			})
		}
		wg.Wait()
		s.cases++
		s.settle()
	}
	s.works()
}

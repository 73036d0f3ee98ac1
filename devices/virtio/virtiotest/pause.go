package virtiotest

import (
	"errors"
	"sync"
	"time"

	"vmm/devices/virtio"
)

var pauseChecks = []check{
	{"pause", checkPause},
	{"pause at each step", checkPauseSteps},
	{"restore", checkRestore},
	{"restore while streaming", checkRestoreStreaming},
	{"restore a broken device", checkRestoreBroken},
	{"pause of a slow device", checkPauseSlow},
	{"pause during reset", checkPauseReset},
	{"load", checkLoad},
}

// pause pauses and resumes the board.
func (s *suite) pause() {
	s.Helper()
	s.board.Pause()
	s.board.Resume()
}

// restore makes the drivers continue with new devices on a new board. The old devices
// are closed.
func (s *suite) restore() {
	s.Helper()
	s.board.Pause()
	saved := s.board.Save()
	g := s.guard(nil)
	board := NewBoard(s, s.board.RAM)
	board.Add(s.kind, s.device())
	s.addBystander(board)
	board.Load(saved)
	again := board.Save()
	if string(again) != string(saved) {
		s.Errorf("saved\n%s\nloaded and saved\n%s", saved, again)
	}
	if err := g.check(); err != nil {
		s.Errorf("while paused: %v", err)
	}
	s.board.Close()
	s.board = board
	s.d.Attach(board, board.Slots[0])
	s.other.Attach(board, board.Slots[1])
	board.Resume()
}

func checkPause(s *suite) {
	s.pause() // of a device that was never started
	s.each(func(setup Setup) {
		s.d.Start(setup)
		for range 3 {
			s.answers(3)
			s.pause()
			for _, q := range s.driven() {
				q.Submit(s.request(q.index))
				q.Notify()
			}
			s.board.Pause()
			n := map[*Queue]int{}
			for _, q := range s.driven() {
				q.Submit(s.request(q.index))
				q.Notify() // like a doorbell that was rung before
				n[q] = q.Done + len(q.flight)
			}
			s.board.Pause() // pausing twice is like pausing once
			s.board.Resume()
			s.board.Resume()
			for q, n := range n {
				q.Poll(n)
			}
			s.cases++
		}
	})
}

// checkPauseSteps pauses and restores before and after each step.
func checkPauseSteps(s *suite) {
	s.d.reset()
	count := len(s.d.steps(s.setup()))
	for n := range count + 1 {
		s.d.reset()
		for i, step := range s.d.steps(s.setup()) {
			if i == n {
				s.restore()
			}
			step.do()
		}
		if n == count {
			s.restore()
		}
		s.answers(2)
		s.cases++
	}
}

// checkRestore checks that requests are answered before, during and after a restore:
// none is lost, none comes twice.
func checkRestore(s *suite) {
	for i, features := range []uint64{0, virtio.FeatureEventIdx | virtio.FeatureIndirectDesc} {
		setup := s.setupWith(features)
		setup.Indirect = i == 1
		s.d.Start(setup)
		for n := range 4 {
			s.answers(n)
			want := map[int]int{}
			for _, q := range s.driven() {
				for range n {
					q.Submit(s.request(q.index))
				}
				if n&1 != 0 {
					q.Kick() // otherwise the device finds them
				}
				want[q.index] = q.Done + n
			}
			s.restore()
			s.bystander()
			for _, q := range s.driven() {
				q.Poll(want[q.index])
			}
			s.answers(2)
			s.cases++
		}
	}
}

// checkRestoreStreaming restores repeatedly while requests stream. No vCPU runs
// meanwhile.
func checkRestoreStreaming(s *suite) {
	setup := s.setupWith(virtio.FeatureEventIdx)
	s.d.Start(setup)
	var vcpu sync.Mutex
	stop := make(chan struct{})
	r := s.stream(stop, &vcpu)
	defer r.wait()
	for i := range 8 {
		s.d.until("some requests", func() bool { return r.count() >= 4*i })
		vcpu.Lock()
		if i%2 == 0 {
			s.restore()
		} else {
			s.pause()
		}
		vcpu.Unlock()
	}
	close(stop)
	r.wait()
	for _, q := range s.driven() {
		q.Poll(q.Done + len(q.flight))
	}
}

// checkRestoreBroken: NEEDS_RESET survives a restore.
func checkRestoreBroken(s *suite) {
	s.d.Start(s.setup())
	for _, q := range s.driven() {
		q.ring.raw([]desc{{addr: 0xdead_0000_0000, n: 4, flags: flagWrite}})
		q.Notify()
	}
	s.needsReset()
	s.pause()
	s.needsReset()
	s.restore()
	s.needsReset()
	c := s.d.access.signals(-1) // these signals are new
	s.d.until("an interrupt after the restore", func() bool { return c.Count() > 0 })
}

// needsReset waits for DEVICE_NEEDS_RESET.
func (s *suite) needsReset() {
	s.Helper()
	s.d.until("DEVICE_NEEDS_RESET", func() bool { return s.d.Get(Status)&needsReset != 0 })
}

// checkPauseSlow: a pause that takes too long fails, and can be undone.
func checkPauseSlow(s *suite) {
	for round := range 3 {
		release := s.hold()
		d := s.d
		d.Start(s.setup())
		for _, q := range s.driven() {
			q.Submit(s.request(q.index))
			q.Notify()
		}
		until(s, "requests in the device", func() bool { return s.target.Busy(d.Slot.Device) == len(s.driven()) })
		for range round + 1 {
			d.Slot.Release()
			err := d.Slot.Pause(time.Millisecond)
			var timeout *virtio.TimeoutError
			if !errors.As(err, &timeout) || timeout.Device != d.Slot.Device.ID() || timeout.Error() == "" {
				s.Fatalf("pause of a slow device: %v", err)
			}
			if got := d.Get(Status); got != 15 {
				s.Errorf("status %#x", got)
			}
			d.Slot.Resume()
		}
		for _, q := range s.driven() {
			q.Submit(s.request(q.index))
			q.Notify()
		}
		release()
		for _, q := range s.driven() {
			q.Poll(2)
		}
		s.answers(2)
		s.restore()
		s.answers(2)
		s.cases++
	}
}

// checkPauseReset: a reset that has begun is complete after a pause, and in the saved
// state. A vCPU that waits for it is released.
func checkPauseReset(s *suite) {
	for _, queue := range []bool{false, true} {
		d := s.d
		d.Start(s.setupWith(virtio.FeatureRingReset))
		q, release := s.stuck()
		vcpu := make(chan struct{})
		go func() {
			defer close(vcpu)
			if queue {
				d.Set(QueueReset, 1)
			} else {
				d.Set(Status, 0)
			}
		}()
		if queue {
			d.until("a reset under way", func() bool { return d.Get(QueueReset) == 1 })
		}
		d.Slot.Release()
		select {
		case <-vcpu: // it no longer waits, though the host does
		case <-time.After(Deadline):
			s.Fatal("Release does not let go a vCPU")
		}
		release()
		s.restore()
		if queue {
			s.queueIsReset(q.index)
			s.again(q)
			s.answers(2)
		} else {
			s.isReset()
		}
		s.cases++
	}
}

// mostLoads returns how many positions of a snapshot are tried. A snapshot with much
// data, such as a console's input, takes long to load, and eight times as long under
// the race detector.
func mostLoads() int {
	if raced {
		return 1 << 8
	}
	return 1 << 10
}

// checkLoad: a snapshot is untrusted bytes.
func checkLoad(s *suite) {
	s.d.Start(s.setup())
	s.answers(1)
	s.board.Pause()
	good, err := s.d.Slot.Save()
	if err != nil {
		s.Fatal(err)
	}
	s.board.Resume()
	board := NewBoard(s, s.board.RAM)
	slot := board.Add(s.kind, s.device())
	step := (len(good)-1)/mostLoads() + 1
	for n := 0; n < len(good); n += step { // truncated
		if slot.Load(good[:n]) == nil {
			s.Errorf("loaded %q", good[:n])
		}
	}
	for i := 0; i < len(good); i += step { // garbled: an error or not, but no panic
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		_ = slot.Load(bad)
	}
	if err := slot.Load(good); err != nil {
		s.Error(err)
	}
	board.Close()
}

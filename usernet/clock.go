package usernet

import (
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"vmm/task"
)

// clock is the guest's time: it stands still while the guest is paused. What waits for
// the guest goes by it, above all netstack with all its timers, so that a pause of an
// hour is to a connection what a pause of a second is. What waits for somebody else
// (a resolver, a connection's other end) goes by the host's. It implements tcpip.Clock.
type clock struct {
	owner task.Owner // of timers
	begun time.Time
	state atomic.Pointer[clockState] // nil while stop looks at the time

	mu     sync.Mutex               // held to change state
	parked map[*clockTimer]struct{} // that were due by the host's time while it stood still; guarded by mu
}

// clockState does not change.
type clockState struct {
	ran   time.Duration // up to since
	since time.Time     // zero: it stands still
}

// newClock returns a clock that goes.
func newClock(owner task.Owner) *clock {
	now := time.Now()
	c := &clock{owner: owner, begun: now, parked: map[*clockTimer]struct{}{}}
	c.state.Store(&clockState{since: now})
	return c
}

// now is how long it has gone. It never goes back: what a state that has just been
// replaced says is not believed, and stop looks at the time when no other can be.
func (c *clock) now() time.Duration {
	for {
		s := c.state.Load()
		if s == nil {
			c.mu.Lock() // until stop has done
			s = c.state.Load()
			c.mu.Unlock()
		}
		if ran := s.now(); c.state.Load() == s {
			return ran
		}
	}
}

func (s *clockState) now() time.Duration {
	if s.since.IsZero() {
		return s.ran
	}
	return s.ran + time.Since(s.since)
}

// stop has it stand still, until start.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.state.Load(); !s.since.IsZero() {
		c.state.Store(nil)
		c.state.Store(&clockState{ran: s.now()})
	}
}

func (c *clock) start() {
	for t := range c.startParked() {
		t.goOn()
	}
}

// startParked returns the timers that are parked no more.
func (c *clock) startParked() (timers map[*clockTimer]struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.state.Load(); s.since.IsZero() {
		c.state.Store(&clockState{ran: s.ran, since: time.Now()})
		timers, c.parked = c.parked, map[*clockTimer]struct{}{}
	}
	return timers
}

// park keeps a timer for start, and returns false if the clock goes.
func (c *clock) park(t *clockTimer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.state.Load().since.IsZero() {
		return false
	}
	c.parked[t] = struct{}{}
	return true
}

// leave forgets a timer that may be parked: in a long pause there may be many whose
// connection has ended.
func (c *clock) leave(t *clockTimer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.parked, t)
}

// Now implements tcpip.Clock.
func (c *clock) Now() time.Time { return c.begun.Add(c.now()) }

// NowMonotonic implements tcpip.Clock.
func (c *clock) NowMonotonic() tcpip.MonotonicTime { return tcpip.MonotonicTime{}.Add(c.now()) }

// AfterFunc implements tcpip.Clock.
func (c *clock) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	t := &clockTimer{c: c, f: f}
	t.mu.Lock() // so that fire finds all of it
	defer t.mu.Unlock()
	t.armed, t.due = true, c.now()+d
	t.t = c.owner.AfterFunc(d, t.fire)
	return t
}

// after returns a channel that is closed after a time, unless stop is called before.
func (c *clock) after(d time.Duration) (over <-chan struct{}, stop func() bool) {
	done := make(chan struct{})
	return done, c.AfterFunc(d, func() { close(done) }).Stop
}

// clockTimer goes by the host's time, and when that is over looks at the clock.
type clockTimer struct {
	c *clock
	f func()

	mu     sync.Mutex // before clock.mu
	t      *time.Timer
	armed  bool // guarded by mu, as is all below; f is to be called
	parked bool // since the clock stood still
	due    time.Duration
}

// Stop implements tcpip.Timer.
func (t *clockTimer) Stop() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	armed := t.armed
	t.armed = false
	t.t.Stop()
	if t.parked {
		t.c.leave(t)
	}
	return armed
}

// Reset implements tcpip.Timer.
func (t *clockTimer) Reset(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed, t.due = true, t.c.now()+d
	t.t.Reset(d)
}

// goOn has a timer that was parked be due when it is.
func (t *clockTimer) goOn() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parked = false
	if t.armed {
		t.t.Reset(t.due - t.c.now())
	}
}

func (t *clockTimer) fire() {
	if t.over() {
		t.f()
	}
}

// over reports whether the time is, once. The clock may have stood still meanwhile.
func (t *clockTimer) over() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.armed {
		return false
	}
	if t.parked = t.c.park(t); t.parked {
		return false
	}
	if left := t.due - t.c.now(); left > 0 {
		t.t.Reset(left)
		return false
	}
	t.armed = false
	return true
}

var _ tcpip.Clock = (*clock)(nil)

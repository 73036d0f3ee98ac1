package usernet

import (
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"vmm/task"
)

// clock is the guest's time: it stops while the guest is paused. Everything that waits
// for the guest uses it, above all netstack with all its timers, so a pause of an hour
// affects a connection no more than a pause of a second. Waits for anything else (a
// resolver, a connection's other end) use the host's time. It implements tcpip.Clock.
type clock struct {
	owner task.Owner // of the timers
	begun time.Time
	state atomic.Pointer[clockState] // nil while stop reads the time

	mu     sync.Mutex               // held to change state
	parked map[*clockTimer]struct{} // due by the host's time while the clock was stopped; guarded by mu
}

// clockState is immutable.
type clockState struct {
	ran   time.Duration // up to since
	since time.Time     // zero: stopped
}

// newClock returns a running clock.
func newClock(owner task.Owner) *clock {
	now := time.Now()
	c := &clock{owner: owner, begun: now, parked: map[*clockTimer]struct{}{}}
	c.state.Store(&clockState{since: now})
	return c
}

// now returns how long the clock has run. It never goes back: the time from a state
// that has just been replaced is discarded, and stop reads the time while no reader
// can.
func (c *clock) now() time.Duration {
	for {
		s := c.state.Load()
		if s == nil {
			c.mu.Lock() // until stop is done
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

// stop stops the clock until start.
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

// startParked starts the clock and returns the timers that were parked.
func (c *clock) startParked() (timers map[*clockTimer]struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.state.Load(); s.since.IsZero() {
		c.state.Store(&clockState{ran: s.ran, since: time.Now()})
		timers, c.parked = c.parked, map[*clockTimer]struct{}{}
	}
	return timers
}

// park keeps a timer for start. It returns false if the clock runs.
func (c *clock) park(t *clockTimer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.state.Load().since.IsZero() {
		return false
	}
	c.parked[t] = struct{}{}
	return true
}

// leave forgets a timer that may be parked: a long pause may collect many whose
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
	t.mu.Lock() // fire must find it complete
	defer t.mu.Unlock()
	t.armed, t.due = true, c.now()+d
	t.t = c.owner.AfterFunc(d, t.fire)
	return t
}

// after returns a channel that is closed after d, unless stop is called first.
func (c *clock) after(d time.Duration) (over <-chan struct{}, stop func() bool) {
	done := make(chan struct{})
	return done, c.AfterFunc(d, func() { close(done) }).Stop
}

// clockTimer runs by the host's time, and checks the clock when that expires.
type clockTimer struct {
	c *clock
	f func()

	mu     sync.Mutex // before clock.mu
	t      *time.Timer
	armed  bool // guarded by mu, as is all below; f will be called
	parked bool // because the clock was stopped
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

// goOn rearms a timer that was parked for the rest of its time.
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

// over reports once that the time is over. The clock may have been stopped meanwhile.
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

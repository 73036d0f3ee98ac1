package limit

import (
	"testing"
	"time"

	"vmm/ethernet"
)

// rig is an endless link behind a limit, and a clock that the test advances.
type rig struct {
	*Link
	now      time.Time
	timers   []timer
	sent     int
	received int
	resumed  int
	writable int
	readable int
}

type timer struct {
	at time.Time
	f  func()
}

const frameSize = 1000

func newRig(t *testing.T, r Rate) *rig {
	g := &rig{now: time.Unix(1000, 0)}
	g.Link = New(endless{g}, r)
	g.Link.now = func() time.Time { return g.now }
	g.Link.schedule = func(d time.Duration, f func()) { g.timers = append(g.timers, timer{g.now.Add(d), f}) }
	if err := g.Start(card{g}); err != nil {
		t.Fatal(err)
	}
	return g
}

// turn advances the clock in steps, and runs the timers that are due.
func (g *rig) turn(d time.Duration) {
	for end := g.now.Add(d); g.now.Before(end); g.now = g.now.Add(time.Millisecond) {
		var due []timer
		left := g.timers[:0]
		for _, t := range g.timers {
			if t.at.After(g.now) {
				left = append(left, t)
			} else {
				due = append(due, t)
			}
		}
		g.timers = left
		for _, t := range due {
			t.f()
		}
	}
}

func (g *rig) send() {
	var h ethernet.Header
	for g.Send(0, &h, [][]byte{make([]byte, frameSize)}) == nil {
	}
}

func (g *rig) receive() {
	var h ethernet.Header
	for {
		if _, err := g.Receive(0, &h, [][]byte{make([]byte, frameSize)}); err != nil {
			return
		}
	}
}

// endless is the link.
type endless struct{ *rig }

func (endless) Info() ethernet.Info           { return ethernet.Info{Pairs: 1} }
func (endless) Configure(ethernet.Mode) error { return nil }
func (endless) Start(ethernet.Guest) error    { return nil }
func (endless) Stop()                         {}
func (endless) Discard()                      {}
func (e endless) Resume(int)                  { e.resumed++; e.receive() }
func (e endless) Send(int, *ethernet.Header, [][]byte) error {
	e.sent++
	return nil
}
func (e endless) Receive(int, *ethernet.Header, [][]byte) (int, error) {
	e.received++
	return frameSize, nil
}

// card is the guest.
type card struct{ *rig }

func (c card) Readable(int) bool { c.readable++; return true }
func (c card) Writable(int)      { c.writable++; c.send() }

// TestRates: a burst, then the rate; each way, by bytes and by frames.
func TestRates(t *testing.T) {
	for _, r := range []Rate{
		{Bytes: 100 * frameSize, Burst: 200 * time.Millisecond},
		{Frames: 100, Burst: 200 * time.Millisecond},
		{Bytes: 1e9, Frames: 100, Burst: 200 * time.Millisecond},
		{Bytes: 100 * frameSize, Frames: 1e6, Burst: 200 * time.Millisecond},
	} {
		g := newRig(t, r)
		g.send()
		g.receive()
		if g.sent != 20 || g.received != 20 {
			t.Errorf("%+v: a burst of %d and %d frames, want 20", r, g.sent, g.received)
		}
		g.turn(10 * time.Second)
		for _, n := range []int{g.sent, g.received} {
			if n < 950 || n > 1025 {
				t.Errorf("%+v: %d frames in 10 s, want 1000 and a burst", r, n)
			}
		}
	}
}

// TestOneTimer: however often a guest tries, there is one timer for each direction.
func TestOneTimer(t *testing.T) {
	g := newRig(t, Rate{Frames: 10})
	for range 1000 {
		g.send()
		g.receive()
	}
	if len(g.timers) != 2 {
		t.Errorf("%d timers", len(g.timers))
	}
}

// TestReadable: a link with frames is told to wait while the limit bars the guest.
func TestReadable(t *testing.T) {
	g := newRig(t, Rate{Frames: 10})
	behind := guest{card{g}, g.Link}
	if !behind.Readable(0) || g.readable != 1 {
		t.Error("the guest does not hear of frames that it may have")
	}
	g.receive()
	if behind.Readable(0) || g.readable != 1 {
		t.Error("the guest hears of frames that it may not have")
	}
	g.turn(time.Second)
	if g.resumed == 0 {
		t.Error("the link waits for ever")
	}
}

// TestStop: no timer reaches a stopped card.
func TestStop(t *testing.T) {
	g := newRig(t, Rate{Frames: 10})
	g.send()
	g.receive()
	g.Stop()
	g.turn(time.Second)
	if g.writable+g.resumed != 0 {
		t.Errorf("%d and %d calls after the stop", g.writable, g.resumed)
	}
	if err := g.Start(card{g}); err != nil {
		t.Fatal(err)
	}
	g.send()
	g.receive()
	g.turn(time.Second)
	if g.writable == 0 || g.resumed == 0 {
		t.Error("nothing moves after a second start")
	}
}

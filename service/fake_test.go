package service

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmm/api"
	"vmm/machine"
	"vmm/roster"
	"vmm/test/allow"
)

// fakeVM is a machine that ends when it is told to or its context ends.
type fakeVM struct {
	config machine.Config
	ends   chan machine.End // of capacity 1
	done   chan struct{}
	deaf   bool          // ignores its power button
	late   time.Duration // time until it runs
	hears  int           // number of the first press that it hears, if not 1

	mu      sync.Mutex
	state   string // guarded by mu: "", running, paused
	presses int    // guarded by mu
	refused int    // guarded by mu; presses after its end
	balloon uint64 // guarded by mu
	closed  bool   // guarded by mu
	exits   chan machine.Exit

	bugs chan string // Run panics with the value
	bug  atomic.Bool // Pause and Stats panic
}

func newFakeVM(c machine.Config) *fakeVM {
	return &fakeVM{config: c, ends: make(chan machine.End, 1), done: make(chan struct{}), exits: make(chan machine.Exit, 8), bugs: make(chan string, 1)}
}

func (f *fakeVM) Run(ctx context.Context) (machine.End, error) {
	defer close(f.done)
	time.Sleep(f.late)
	f.move("", "running")
	select {
	case e := <-f.ends:
		return e, nil
	case bug := <-f.bugs:
		panic(bug)
	case <-ctx.Done():
		return machine.End{Reason: machine.Stopped}, nil
	}
}

func (f *fakeVM) move(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state != from && f.state != to {
		return &machine.StateError{State: f.state}
	}
	f.state = to
	return nil
}

func (f *fakeVM) Pause() error {
	if f.bug.Load() {
		panic("a bug of Pause")
	}
	return f.move("running", "paused")
}

func (f *fakeVM) Resume() error { return f.move("paused", "running") }

func (f *fakeVM) pressed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.presses
}

func (f *fakeVM) refusals() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused
}

func (f *fakeVM) PressPowerButton() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == "" {
		return &machine.StateError{State: "not started"}
	}
	if f.state == "ended" {
		f.refused++
		return machine.ErrEnded
	}
	if f.presses++; !f.deaf && f.presses >= f.hears && f.state == "running" {
		select {
		case f.ends <- machine.End{Reason: machine.PowerOff}:
		default: // it has heard an earlier press and takes its time
		}
	}
	return nil
}

func (f *fakeVM) SendBreak() {}

func (f *fakeVM) SetBalloon(n uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > f.config.Memory {
		return &machine.ConfigError{Field: "Balloon", Why: "larger than the guest"}
	}
	f.balloon = n
	return nil
}

func (f *fakeVM) BalloonStats() (machine.BalloonStats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return machine.BalloonStats{Target: f.balloon, Guest: map[string]uint64{"free-memory": 7}}, nil
}

func (f *fakeVM) Stats() machine.Stats {
	if f.bug.Load() {
		panic("a bug of Stats")
	}
	s := machine.Stats{Memory: f.config.Memory, Resident: 5}
	s.CPUs = []machine.CPUStats{{Exits: map[string]uint64{"I/O": 3, "MMIO": 4}, Guest: time.Second}}
	s.Devices = []machine.DeviceStats{diskStats()}
	return s
}

func (f *fakeVM) Trace() (<-chan machine.Exit, func(), error) { return f.exits, func() {}, nil }
func (f *fakeVM) Done() <-chan struct{}                       { return f.done }

func (f *fakeVM) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// fixture is a guest whose machines are fakes.
type fixture struct {
	*Guest
	vms    chan *fakeVM // one per life
	roster *roster.Roster
	ended  chan End
	log    *bytes.Buffer
}

func newFixture(t *testing.T, o Options) *fixture {
	t.Helper()
	r, err := roster.Create(filepath.Join(t.TempDir(), "r"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{vms: make(chan *fakeVM, 100), roster: r, ended: make(chan End, 1), log: &bytes.Buffer{}}
	o.Roster = r
	if o.boot == nil {
		o.boot = func(c machine.Config) (vm, error) {
			m := newFakeVM(c)
			f.vms <- m
			return m, nil
		}
	}
	o.Status = func(e End) int { return int(e.Reason) + 10*int(e.Signal) }
	c := machine.Config{Name: "web", Memory: 64 << 20, CPUs: 1, Kernel: "k", Log: slog.New(slog.NewTextHandler(f.log, nil))}
	if f.Guest, err = New(c, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Kill(9)
		f.Guest.Close()
	})
	return f
}

// run runs the guest and returns the running machine of its first life.
func (f *fixture) run(t *testing.T) *fakeVM {
	t.Helper()
	go func() { f.ended <- f.Run(context.Background(), nil) }()
	return f.life(t)
}

// life returns the machine of the next life, once it runs.
func (f *fixture) life(t *testing.T) *fakeVM {
	t.Helper()
	select {
	case m := <-f.vms:
		f.await(t, func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.state == "running" && f.About().State == api.Running
		})
		return m
	case <-time.After(allow.Time(10 * time.Second)):
		t.Fatal("the guest is not started")
		return nil
	}
}

func (f *fixture) await(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(allow.Time(10 * time.Second)); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}

func (f *fixture) end(t *testing.T) End {
	t.Helper()
	select {
	case e := <-f.ended:
		return e
	case <-time.After(allow.Time(10 * time.Second)):
		t.Fatal("the guest does not end")
		return End{}
	}
}

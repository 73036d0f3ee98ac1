package service

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"vmm/api"
	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/histogram"
	"vmm/machine"
)

func diskStats() machine.DeviceStats {
	var h histogram.Histogram
	h.Observe(3 * time.Microsecond)
	h.Observe(time.Hour)
	return machine.DeviceStats{Name: "disk0", Stats: virtio.Stats{
		ID:       virtio.IDBlock,
		Queues:   []virtio.QueueStats{{Count: virtq.Count{Chains: 2, In: 100, Out: 32, Interrupts: 1}, Wakes: 2}, {Count: virtq.Count{Chains: 1}}},
		Counters: map[string]uint64{"failed": 0},
		Latency:  map[string]histogram.Snapshot{"read": h.Load()},
	}}
}

// recorded returns the guest's record in the roster.
func (f *fixture) recorded(t *testing.T) (g api.Guest) {
	t.Helper()
	e, err := f.roster.Find("web")
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Record()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestStates: the guest's state, and its record, at each step.
func TestStates(t *testing.T) {
	f := newFixture(t, Options{Keep: true, Policy: Policy{Failure: true}})
	is := func(want api.State) {
		t.Helper()
		if a, r := f.About(), f.recorded(t); a.State != want || r.State != want || r.Config["Kernel"] != "k" || *r.Restart != "on-failure" {
			t.Errorf("state %v, recorded %+v; want %v", a.State, r, want)
		}
	}
	is(api.Starting)
	var state *machine.StateError
	if err := f.Pause(); !errors.As(err, &state) {
		t.Errorf("pause of one that does not run: %v", err)
	}
	m := f.run(t)
	is(api.Running)
	for range 2 { // the second has no effect
		if err := f.Pause(); err != nil {
			t.Error(err)
		}
		is(api.Paused)
	}
	if err := f.Resume(); err != nil {
		t.Error(err)
	}
	is(api.Running)
	m.ends <- machine.End{Reason: machine.PowerOff}
	if e := f.end(t); e.Reason != machine.PowerOff || e.Err != nil || e.Signal != 0 {
		t.Errorf("%+v", e)
	}
	is(api.Ended)
	if e := f.recorded(t).End; e.Reason != "power off" || e.Status != 0 {
		t.Errorf("%+v", e)
	}
	for name, err := range map[string]error{"pause": f.Pause(), "stop": f.Stop(syscall.SIGTERM, 0), "kill": f.Kill(syscall.SIGKILL), "balloon": f.SetBalloon(0)} {
		if !errors.As(err, &state) {
			t.Errorf("%s of one that has ended: %v", name, err)
		}
	}
	if !m.closed {
		t.Error("its machine was not closed")
	}
}

// TestRestart: the guest restarts as often as its policy says, and its attached clients
// notice nothing else.
func TestRestart(t *testing.T) {
	f := newFixture(t, Options{Policy: Policy{Failure: true, Most: 2}})
	m := f.run(t)
	for life := range 3 {
		io.WriteString(m.config.ConsoleOut, "hello ")
		if got := f.About(); got.Restarts != life || got.State != api.Running {
			t.Errorf("life %d: %+v", life, got)
		}
		m.ends <- machine.End{Reason: machine.Panic}
		if life < 2 {
			m = f.life(t)
		}
	}
	if e := f.end(t); e.Reason != machine.Panic {
		t.Errorf("%+v", e)
	}
	if got := allOfLog(t, f.out.log.root); got != "hello hello hello " {
		t.Errorf("log %q", got)
	}
}

// TestStop: a guest that is asked to stop may power off. One that does not is killed. No
// policy restarts a stopped guest.
func TestStop(t *testing.T) {
	for _, test := range []struct {
		name    string
		deaf    bool
		timeout time.Duration
		stops   int
		paused  bool
		end     machine.Reason
	}{
		{"a guest that hears", false, time.Hour, 1, false, machine.PowerOff},
		{"a paused guest", false, time.Hour, 1, true, machine.PowerOff},
		{"a deaf guest", true, time.Millisecond, 1, false, machine.Stopped},
		{"a deaf guest, asked twice", true, time.Hour, 2, false, machine.Stopped},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, Options{Policy: Policy{Always: true}})
			m := f.run(t)
			m.deaf = test.deaf
			if test.paused {
				f.Pause()
			}
			for i := range test.stops {
				if i > 0 {
					f.await(t, func() bool { return m.pressed() == 1 })
				}
				if err := f.Stop(syscall.SIGTERM, test.timeout); err != nil {
					t.Error(err)
				}
			}
			// A guest with a very short timeout may end before the first press.
			if e := f.end(t); e.Reason != test.end || e.Signal != syscall.SIGTERM || m.pressed() > 1 {
				t.Errorf("%+v, pressed %d times", e, m.pressed())
			}
		})
	}
}

// TestStopWhileBooting: a guest that does not respond to its power button yet does so
// later. One that never does gets its timeout and no more.
func TestStopWhileBooting(t *testing.T) {
	for _, test := range []struct {
		name    string
		late    time.Duration // until the machine runs
		hears   int           // the first press that it hears
		timeout time.Duration
		end     machine.Reason
		lasts   time.Duration
	}{
		{"at once", 0, 1, time.Minute, machine.PowerOff, 0},
		{"booting", 0, 7, time.Minute, machine.PowerOff, 6 * pressAgain},
		{"not running yet", 5 * pressAgain / 2, 2, time.Minute, machine.PowerOff, 4 * pressAgain},
		{"never", 0, 100, 10 * time.Second, machine.Stopped, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				vms := make(chan *fakeVM, 1)
				g, err := New(machine.Config{Name: "web"}, Options{Policy: Policy{Always: true}, boot: func(c machine.Config) (vm, error) {
					m := newFakeVM(c)
					m.hears, m.late = test.hears, test.late
					vms <- m
					return m, nil
				}})
				if err != nil {
					t.Fatal(err)
				}
				defer g.Close()
				ended := make(chan End, 1)
				go func() { ended <- g.Run(t.Context(), nil) }()
				<-vms
				synctest.Wait()
				began := time.Now()
				if err := g.Stop(syscall.SIGTERM, test.timeout); err != nil {
					t.Fatal(err)
				}
				e := <-ended
				if lasted := time.Since(began); e.Reason != test.end || e.Signal != syscall.SIGTERM || lasted != test.lasts {
					t.Errorf("%+v after %v", e, lasted)
				}
				synctest.Wait() // no goroutine still presses the button
			})
		})
	}
}

// TestStopWhileEnding: a guest that has ended, and whose output has a slow reader, cannot
// hear a power button. Stop then ends the wait for the reader. But a guest that powered
// off because of the stop has the whole timeout for its last output.
func TestStopWhileEnding(t *testing.T) {
	for _, test := range []struct {
		name    string
		powered bool // off by the stop; otherwise it ended before
		end     machine.Reason
	}{
		{"ended before", false, machine.Stopped},
		{"ended since", true, machine.PowerOff},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, Options{})
			m := f.run(t)
			m.deaf = true
			if !test.powered {
				m.move("running", "ended")
			}
			if err := f.Stop(syscall.SIGTERM, time.Hour); err != nil {
				t.Fatal(err)
			}
			if test.powered {
				f.await(t, func() bool { return m.pressed() == 1 })
				m.move("running", "ended")
				f.await(t, func() bool { return m.refusals() == 1 }) // the next press
				m.ends <- machine.End{Reason: machine.PowerOff}
			}
			if e := f.end(t); e.Reason != test.end || e.Signal != syscall.SIGTERM {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestStopBetweenLives: a guest killed while it waits for its next life has no more.
func TestStopBetweenLives(t *testing.T) {
	f := newFixture(t, Options{Policy: Policy{Always: true}})
	m := f.run(t)
	for range 4 { // then the pause is 1.6 s
		m.ends <- machine.End{Reason: machine.Panic}
		m = f.life(t)
	}
	m.ends <- machine.End{Reason: machine.Panic}
	f.await(t, func() bool { return f.About().State == api.Starting })
	if err := f.Kill(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if e := f.end(t); e.Reason != machine.Stopped || e.Signal != syscall.SIGKILL || len(f.vms) > 0 {
		t.Errorf("%+v, and %d more lives", e, len(f.vms))
	}
}

// TestFirstStart: if the first machine cannot be made, there is no second try.
func TestFirstStart(t *testing.T) {
	n := 0
	f := newFixture(t, Options{Policy: Policy{Always: true}, boot: func(machine.Config) (vm, error) {
		n++
		return nil, &machine.ConfigError{Field: "Kernel", Why: "none"}
	}})
	if e := f.Run(context.Background(), func() { t.Error("it has begun") }); e.Err == nil || n != 1 {
		t.Errorf("%+v after %d tries", e, n)
	}
	if e := f.About().End; e == nil || !strings.Contains(*e.Error, "Kernel") {
		t.Errorf("%+v", e)
	}
}

// TestStorm: all operations at once, while lives begin and end. It is for -race.
func TestStorm(t *testing.T) {
	f := newFixture(t, Options{Policy: Policy{Reboot: true}})
	m := f.run(t)
	var all sync.WaitGroup
	quit := make(chan struct{})
	for _, call := range []func(){
		func() { f.Pause() }, func() { f.Resume() }, func() { f.Stats() }, func() { f.About() }, func() { f.SetBalloon(1) },
		func() {
			if w, err := f.out.watch(AllLines); err == nil {
				w.Close()
			}
		},
	} {
		all.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
					call()
				}
			}
		})
	}
	for range 50 {
		io.WriteString(m.config.ConsoleOut, "text")
		m.ends <- machine.End{Reason: machine.Reset}
		m = <-f.vms
	}
	f.Kill(syscall.SIGKILL)
	f.end(t)
	close(quit)
	all.Wait()
}

// TestLivesShareFiles: paths are resolved once, for all lives.
func TestLivesShareFiles(t *testing.T) {
	f := newFixture(t, Options{Policy: Policy{Reboot: true}})
	m := f.run(t)
	files := m.config.Files
	if files == nil {
		t.Error("the first life resolves paths by itself")
	}
	m.ends <- machine.End{Reason: machine.Reset}
	if m = f.life(t); m.config.Files != files {
		t.Error("the second life resolves them again")
	}
	m.ends <- machine.End{Reason: machine.PowerOff}
	f.end(t)
}

// TestCollision: a guest that could write to the roster does not start.
func TestCollision(t *testing.T) {
	f := newFixture(t, Options{})
	f.config.Shares = []machine.Share{{Dir: f.roster.Dir()}}
	go func() { f.ended <- f.Run(context.Background(), nil) }()
	e := f.end(t)
	if in := (*machine.CollisionError)(nil); !errors.As(e.Err, &in) {
		t.Errorf("%v", e)
	}
}

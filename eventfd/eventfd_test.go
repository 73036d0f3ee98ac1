package eventfd

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/test/allow"
)

func newFD(t testing.TB) *FD {
	e, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// waiting calls Wait. The returned function gives its result, which must come soon.
func waiting(t testing.TB, e *FD) func() error {
	done := make(chan error, 1)
	go func() { done <- e.Wait() }()
	return func() error {
		t.Helper()
		select {
		case err := <-done:
			return err
		case <-time.After(allow.Time(10 * time.Second)):
			t.Fatal("Wait does not return")
			return nil
		}
	}
}

func TestSignal(t *testing.T) {
	e := newFD(t)
	e.Signal()
	e.Signal() // merged with the first
	if err := e.Wait(); err != nil {
		t.Fatal(err)
	}
	wait := waiting(t, e)
	e.Signal()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}

// TestStop: a stopped FD keeps its signal.
func TestStop(t *testing.T) {
	e := newFD(t)
	wait := waiting(t, e)
	e.Stop()
	if err := wait(); !errors.Is(err, ErrStopped) {
		t.Fatalf("Wait: %v", err)
	}
	e.Signal()
	if err := e.Wait(); !errors.Is(err, ErrStopped) {
		t.Fatalf("Wait of a stopped one: %v", err)
	}
	e.Start()
	if err := waiting(t, e)(); err != nil {
		t.Fatal(err)
	}
	wait = waiting(t, e)
	e.Stop()
	if err := wait(); !errors.Is(err, ErrStopped) {
		t.Fatalf("Wait of one that is stopped again: %v", err)
	}
}

func TestNoAllocation(t *testing.T) {
	e := newFD(t)
	if n := testing.AllocsPerRun(100, func() { e.Signal(); e.Wait() }); n != 0 {
		t.Errorf("%v allocations a signal", n)
	}
}

// The compared ways to wait; Wait is the first.
var waits = []struct {
	name string
	wait func(b *testing.B, e *FD) func() error
}{
	{"blocking", func(_ *testing.B, e *FD) func() error { return e.Wait }},
	{"without-yield", func(_ *testing.B, e *FD) func() error {
		return func() error {
			_, err := unix.Read(e.fd, e.count[:])
			return err
		}
	}},
	{"locked-thread", func(_ *testing.B, e *FD) func() error {
		locked := false
		return func() error {
			if !locked {
				runtime.LockOSThread()
				locked = true
			}
			_, err := unix.Read(e.fd, e.count[:])
			return err
		}
	}},
	{"poller", func(b *testing.B, e *FD) func() error {
		unix.SetNonblock(e.fd, true)
		f := os.NewFile(uintptr(e.fd), "eventfd")
		b.Cleanup(func() { f.Close() })
		return func() error {
			_, err := f.Read(e.count[:])
			return err
		}
	}},
}

// answer starts a goroutine that waits for ping, in one of the ways, and signals pong.
func answer(b *testing.B, wait func(*testing.B, *FD) func() error) (ping, pong *FD) {
	ping, pong = newFD(b), newFD(b)
	next := wait(b, ping)
	go func() {
		for next() == nil && !ping.stopped.Load() {
			pong.Signal()
		}
	}()
	return ping, pong
}

// BenchmarkWake measures a signal to a waiting goroutine and one back, without pauses.
func BenchmarkWake(b *testing.B) {
	for _, w := range waits {
		b.Run(w.name, func(b *testing.B) {
			ping, pong := answer(b, w.wait)
			b.ReportAllocs()
			for b.Loop() {
				ping.Signal()
				unix.Read(pong.fd, pong.count[:])
			}
			ping.Stop()
		})
	}
}

// BenchmarkIdle is the same with a millisecond between round trips, as between a
// guest's requests; rtt-ns excludes it.
func BenchmarkIdle(b *testing.B) {
	for _, w := range waits {
		b.Run(w.name, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // as machine does
			ping, pong := answer(b, w.wait)
			runtime.LockOSThread() // the Go scheduler does not run a guest
			defer runtime.UnlockOSThread()
			took := time.Duration(0)
			for b.Loop() {
				pause := unix.Timespec{Nsec: 1e6}
				unix.Nanosleep(&pause, nil)
				began := time.Now()
				ping.Signal()
				unix.Read(pong.fd, pong.count[:])
				took += time.Since(began)
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "rtt-ns")
			ping.Stop()
		})
	}
}

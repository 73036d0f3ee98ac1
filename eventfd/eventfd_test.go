package eventfd

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newFD(t testing.TB) *FD {
	e, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// waiting calls Wait and gives what it returns, which must come soon.
func waiting(t testing.TB, e *FD) func() error {
	done := make(chan error, 1)
	go func() { done <- e.Wait() }()
	return func() error {
		t.Helper()
		select {
		case err := <-done:
			return err
		case <-time.After(10 * time.Second):
			t.Fatal("Wait does not return")
			return nil
		}
	}
}

func TestSignal(t *testing.T) {
	e := newFD(t)
	e.Signal()
	e.Signal() // one with the first
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

// BenchmarkWake is a signal to a goroutine that waits, and one back: as Wait
// does it, on a thread of its own, and through Go's poller.
func BenchmarkWake(b *testing.B) {
	waits := map[string]func(b *testing.B) (*FD, func() error){
		"blocking": func(b *testing.B) (*FD, func() error) {
			e := newFD(b)
			return e, e.Wait
		},
		"locked": func(b *testing.B) (*FD, func() error) {
			e, locked := newFD(b), false
			return e, func() error {
				if !locked {
					runtime.LockOSThread()
					locked = true
				}
				return e.Wait()
			}
		},
		"poller": func(b *testing.B) (*FD, func() error) {
			e := newFD(b)
			unix.SetNonblock(e.fd, true)
			f := os.NewFile(uintptr(e.fd), "eventfd")
			b.Cleanup(func() { f.Close() })
			return e, func() error {
				_, err := f.Read(e.count[:])
				return err
			}
		},
	}
	for name, wait := range waits {
		b.Run(name, func(b *testing.B) {
			ping, waitPing := wait(b)
			pong, waitPong := wait(b)
			go func() {
				for waitPing() == nil && !ping.stopped.Load() {
					pong.Signal()
				}
			}()
			b.ReportAllocs()
			for b.Loop() {
				ping.Signal()
				waitPong()
			}
			ping.Stop()
		})
	}
}

package eventfd

import (
	"errors"
	"testing"
	"time"
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
	e.Close()
	if err := wait(); !errors.Is(err, ErrStopped) {
		t.Fatalf("Wait of a closed one: %v", err)
	}
}

func TestNoAllocation(t *testing.T) {
	e := newFD(t)
	if n := testing.AllocsPerRun(100, func() { e.Signal(); e.Wait() }); n != 0 {
		t.Errorf("%v allocations a signal", n)
	}
}

// BenchmarkWake is a signal to a goroutine that waits, and one back.
func BenchmarkWake(b *testing.B) {
	ping, pong := newFD(b), newFD(b)
	go func() {
		for ping.Wait() == nil {
			pong.Signal()
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		ping.Signal()
		pong.Wait()
	}
}

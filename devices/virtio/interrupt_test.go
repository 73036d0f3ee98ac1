package virtio

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// lengthy is a device with requests that may take long.
type lengthy struct {
	null
	mu   sync.Mutex
	rung bool          // guarded by mu
	told chan struct{} // sent to on each call; has room for all
}

func (l *lengthy) Interrupt() { l.ring(true) }
func (l *lengthy) Continue()  { l.ring(false) }

func (l *lengthy) ring(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rung = on
	l.told <- struct{}{}
}

// wait waits until the device is interrupted, or no longer is.
func (l *lengthy) wait(t *testing.T, what string, want bool) {
	t.Helper()
	for timeout := time.After(deadline); ; {
		l.mu.Lock()
		got := l.rung
		l.mu.Unlock()
		if got == want {
			return
		}
		select {
		case <-l.told:
		case <-timeout:
			t.Fatalf("timeout: %s", what)
		}
	}
}

// TestInterrupt: stopping the device interrupts long requests. The interruption ends
// with a resume, even after a pause that timed out.
func TestInterrupt(t *testing.T) {
	l := &lengthy{told: make(chan struct{}, 1000)}
	d := newMMIO(t, l)
	l.Interrupt()
	d.up()
	l.wait(t, "start", false)
	d.ops.Lock() // as if the reset of a queue waited for such a request
	var timeout *TimeoutError
	if err := d.Pause(time.Millisecond); !errors.As(err, &timeout) {
		t.Fatalf("pause: %v", err)
	}
	l.wait(t, "pause", true)
	d.Resume()
	d.ops.Unlock()
	l.wait(t, "resume after a pause that failed", false)
	if err := d.Pause(deadline); err != nil {
		t.Fatal(err)
	}
	l.wait(t, "pause", true)
	d.Resume()
	l.wait(t, "resume", false)
	d.ops.Lock()
	done := d.set(mmioStatus, 0)
	d.ops.Unlock()
	ended(t, "reset", done)
	l.wait(t, "reset", true)
}

// Package eventfd wraps eventfd(2), the only doorbell of this program. KVM signals it
// on a guest's notification (ioeventfd) or turns it into an interrupt (irqfd); devices
// and tests signal it themselves.
package eventfd

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrStopped is returned by Wait on a stopped FD.
var ErrStopped = errors.New("eventfd: stopped")

// FD is an eventfd. Its methods may be called from any goroutine, but only one may
// wait at a time.
type FD struct {
	fd      int
	stopped atomic.Bool
	yielder Yielder // used by Wait
	count   [8]byte // what Wait reads; a field because a local variable would escape to the heap
}

// New returns an eventfd that is not signalled. The caller closes it.
func New() (*FD, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd2", err)
	}
	return &FD{fd: fd}, nil
}

// Fd returns the descriptor, for KVM. It is valid until Close.
func (e *FD) Fd() int { return e.fd }

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// Signal implements bus.Interrupt: it wakes the waiter, or the next one. Signals
// before the next Wait count as one. It does not block: that would take 2^64 signals.
func (e *FD) Signal() { unix.Write(e.fd, one) }

// Wait returns nil once signalled, and ErrStopped once stopped. It blocks the thread
// in the kernel. This costs a thread, but wakes in two thirds of the time of Go's
// poller (BenchmarkIdle): a guest waits for this on each request.
func (e *FD) Wait() error {
	for !e.stopped.Load() {
		e.yielder.Yield()
		_, err := unix.Read(e.fd, e.count[:])
		if err == nil && !e.stopped.Load() {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return ErrStopped
		}
	}
	return ErrStopped
}

// Stop makes Wait fail until Start.
func (e *FD) Stop() {
	e.stopped.Store(true)
	e.Signal()
}

// Start undoes Stop. It signals, because a signal may have come meanwhile.
func (e *FD) Start() {
	e.stopped.Store(false)
	e.Signal()
}

// Close closes the descriptor. No goroutine may be waiting: call Stop first.
func (e *FD) Close() error { return os.NewSyscallError("close", unix.Close(e.fd)) }

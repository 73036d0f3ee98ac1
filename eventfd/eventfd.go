// Package eventfd wraps eventfd(2): the one doorbell of this program. KVM
// signals it on a guest's notification (ioeventfd) or makes an interrupt of it
// (irqfd); devices and tests ring it themselves.
package eventfd

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrStopped is what Wait returns of a stopped FD.
var ErrStopped = errors.New("eventfd: stopped")

// FD is an eventfd. Its methods may be called from any goroutine, but one at a
// time waits.
type FD struct {
	fd      int
	stopped atomic.Bool
	yielder Yielder // Wait's
	count   [8]byte // what Wait reads; here, for on a stack it would escape
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
// that nobody has waited for yet are one. It does not block: that would take
// 2^64 of them.
func (e *FD) Signal() { unix.Write(e.fd, one) }

// Wait returns nil once signalled, and ErrStopped once stopped. It blocks the
// thread in the kernel, which costs a thread and wakes in two thirds of the time
// that Go's poller takes (BenchmarkIdle): a guest waits for it with each request.
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

// Start undoes Stop. It signals, for a signal may have come meanwhile.
func (e *FD) Start() {
	e.stopped.Store(false)
	e.Signal()
}

// Close frees the descriptor. Nobody may be waiting: Stop first.
func (e *FD) Close() error { return os.NewSyscallError("close", unix.Close(e.fd)) }

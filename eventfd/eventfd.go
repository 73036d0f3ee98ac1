// Package eventfd wraps eventfd(2): the one doorbell of this program. KVM
// signals it on a guest's notification (ioeventfd) or makes an interrupt of it
// (irqfd); devices and tests ring it themselves.
package eventfd

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStopped is what Wait returns of a stopped FD.
var ErrStopped = errors.New("eventfd: stopped")

// FD is an eventfd. Its methods may be called from any goroutine, but one at a
// time waits.
type FD struct {
	f     *os.File
	fd    int
	count [8]byte // what Wait reads; here, for on a stack it would escape
}

// New returns an eventfd that is not signalled. The caller closes it.
func New() (*FD, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd2", err)
	}
	return &FD{f: os.NewFile(uintptr(fd), "eventfd"), fd: fd}, nil
}

// Fd returns the descriptor, for KVM. It is valid until Close.
func (e *FD) Fd() int { return e.fd }

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// Signal implements bus.Interrupt: it wakes the waiter, or the next one. Signals
// that nobody has waited for yet are one. It never blocks: a full counter is a
// signal that is there already.
func (e *FD) Signal() { unix.Write(e.fd, one) }

// Wait returns nil once signalled, and ErrStopped once stopped. It parks the
// goroutine and no thread.
func (e *FD) Wait() error {
	if _, err := e.f.Read(e.count[:]); err != nil {
		return ErrStopped
	}
	return nil
}

// Stop makes Wait fail until Start. A signal is kept for then.
func (e *FD) Stop() { e.f.SetReadDeadline(time.Unix(1, 0)) }

// Start undoes Stop.
func (e *FD) Start() { e.f.SetReadDeadline(time.Time{}) }

// Close frees the descriptor; a Wait returns ErrStopped.
func (e *FD) Close() error { return e.f.Close() }

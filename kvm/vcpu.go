package kvm

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrKicked is returned by VCPU.Run when Kick ended it.
var ErrKicked = errors.New("kvm: kicked")

// VCPU is one virtual CPU. All methods except Kick are for the thread that runs it.
// Other threads may call them only while that thread is not in Run.
type VCPU struct {
	fd        int
	run       []byte // the kvm_run page and what follows it
	immediate flag   // immediate_exit, inside run

	mu     sync.Mutex
	tid    int  // guarded by mu; the thread to signal, 0 if none
	closed bool // guarded by mu
}

// Bind makes the calling thread the one that Kick signals. The caller has
// locked it to its goroutine (runtime.LockOSThread).
func (v *VCPU) Bind() { v.bind(unix.Gettid()) }

// Unbind is called before the thread ends: its ID may be reused.
func (v *VCPU) Unbind() { v.bind(0) }

func (v *VCPU) bind(tid int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tid = tid
}

// Run runs the guest until it needs user space, as described by the Exit, or until
// Kick, which returns ErrKicked. The access of an Exit is complete only when Run is
// called again: registers read before that are from the middle of an instruction
// (api.rst, KVM_RUN).
func (v *VCPU) Run() (Exit, error) {
	for {
		_, errno := ioctl(v.fd, reqRun, 0)
		switch errno {
		case 0:
			return decode(v.run), nil
		case syscall.EINTR:
			// Clear the flag only here: if it were cleared before an entry, a kick at
			// that moment would be lost.
			if v.immediate.isSet() {
				v.immediate.clear()
				return Exit{}, ErrKicked
			}
		case syscall.EAGAIN: // an AP that waits for its SIPI was woken up
		default:
			return decode(v.run), fail("KVM_RUN", errno)
		}
	}
}

// Kick makes the current Run, or else the next one, return ErrKicked. It may be called
// from any goroutine at any time, even after Close.
func (v *VCPU) Kick() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.immediate.set()
	if v.tid != 0 {
		// Go's runtime uses SIGURG for preemption: its handler tolerates an extra
		// one, and the system call ends with EINTR.
		unix.Tgkill(os.Getpid(), v.tid, unix.SIGURG)
	}
}

// Close releases the vCPU; no Run may be in progress.
func (v *VCPU) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	return errors.Join(unix.Munmap(v.run), unix.Close(v.fd))
}

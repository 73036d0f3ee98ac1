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

// VCPU is one virtual CPU. All methods but Kick are for the one thread that
// runs it, and for others only while that thread is not in Run.
type VCPU struct {
	fd        int
	run       []byte // the kvm_run page and what is behind it
	immediate flag   // immediate_exit, inside run

	mu     sync.Mutex
	tid    int  // guarded by mu; the thread to signal, 0 if none
	closed bool // guarded by mu
}

// Bind makes the calling thread the one that Kick signals. The caller has
// locked it to its goroutine (runtime.LockOSThread).
func (v *VCPU) Bind() { v.bind(unix.Gettid()) }

// Unbind is called before the thread goes: its id may become another's.
func (v *VCPU) Unbind() { v.bind(0) }

func (v *VCPU) bind(tid int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tid = tid
}

// Run runs the guest until it needs something of user space, which is then in
// the Exit, or until Kick, which is ErrKicked. The access of an Exit is
// complete only once Run is called again: registers that are read before are
// from the middle of an instruction (api.rst, KVM_RUN).
func (v *VCPU) Run() (Exit, error) {
	for {
		_, errno := ioctl(v.fd, reqRun, 0)
		switch errno {
		case 0:
			return decode(v.run), nil
		case syscall.EINTR:
			// Clear the flag only here: cleared before an entry, a kick
			// that came just then would be lost.
			if v.immediate.isSet() {
				v.immediate.clear()
				return Exit{}, ErrKicked
			}
		case syscall.EAGAIN: // an AP that waits for its SIPI was woken
		default:
			return decode(v.run), fail("KVM_RUN", errno)
		}
	}
}

// Kick makes the Run that is under way, or else the next, return ErrKicked. It
// may be called from any goroutine, at any time, also after Close.
func (v *VCPU) Kick() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.immediate.set()
	if v.tid != 0 {
		// SIGURG is what Go's own runtime preempts with: its handler
		// tolerates one too many, and the system call ends with EINTR.
		unix.Tgkill(os.Getpid(), v.tid, unix.SIGURG)
	}
}

// Close gives the vCPU up; no Run may be under way.
func (v *VCPU) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	return errors.Join(unix.Munmap(v.run), unix.Close(v.fd))
}

package machine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmm/bus"
	"vmm/eventfd"
	"vmm/kvm"
)

// cpu is the part of *kvm.VCPU that the loop uses; tests supply their own.
type cpu interface {
	Bind()
	Run() (kvm.Exit, error)
	Kick() // makes the current or the next Run return kvm.ErrKicked
	Unbind()
}

// errStop ends the loop when a call returns it; errEnded is the result of a call to an
// ended loop.
var (
	errStop  = errors.New("stop")
	errEnded = errors.New("the vCPU has ended")
)

// vcpu runs one virtual CPU on its own thread. All other work on the CPU (pause,
// register access, stop) is a call that the same thread makes between two entries, so
// a vcpu needs no lock.
//
//	         pause                      stop
//	running -------> paused     either ------> ended: every call fails
//	        <-------
//	         resume
type vcpu struct {
	cpu           cpu
	ports, memory *bus.Bus
	halt          *atomic.Bool // set once the machine ends: no guest instruction after that
	calls         chan call
	ended         chan struct{}   // closed by loop
	lost          <-chan struct{} // closed when no caller waits for the vCPU any more; nil: never

	stats cpuStats

	paused bool // used only by the thread

	onPause func() // may be nil; called by the thread as soon as the CPU is paused
}

type call struct {
	f    func() error
	done chan error // capacity 1, so that the thread never waits
}

func newVCPU(c cpu, ports, memory *bus.Bus, halt *atomic.Bool) *vcpu {
	return &vcpu{cpu: c, ports: ports, memory: memory, halt: halt, calls: make(chan call, 1), ended: make(chan struct{}),
		stats: cpuStats{tracing: new(atomic.Pointer[trace])}}
}

// do runs f on the CPU's thread while the CPU is not in the guest, and returns the
// result of f, or errEnded. It may be called from any goroutine except the thread's.
func (v *vcpu) do(f func() error) error {
	c := call{f, make(chan error, 1)}
	select {
	case v.calls <- c:
	case <-v.ended:
		return errEnded
	case <-v.lost:
		return errEnded
	}
	v.cpu.Kick() // after the send, so that a kicked loop finds the call
	select {
	case err := <-c.done:
		return err
	case <-v.ended:
	case <-v.lost: // the loop may wait for a lock that a panic left held
	}
	// The loop may have made this call as its last.
	select {
	case err := <-c.done:
		return err
	default:
		return errEnded
	}
}

func (v *vcpu) pause() error {
	return v.do(func() error {
		v.paused = true
		if v.onPause != nil {
			v.onPause()
		}
		return nil
	})
}

func (v *vcpu) resume() error { return v.do(func() error { v.paused = false; return nil }) }
func (v *vcpu) stop()         { v.do(func() error { return errStop }) }

// loop runs the guest until a call or the guest ends it. The goroutine's thread ends
// with it.
//
// Calls are made only after a kick or while paused. KVM finishes the access of the
// last exit when the thread enters the guest again, and only then is the CPU's state
// complete (api.rst, KVM_RUN).
func (v *vcpu) loop() error {
	defer close(v.ended)
	runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
	v.cpu.Bind()
	defer v.cpu.Unbind()
	v.stats.thread.Store(int32(unix.Gettid()))
	defer v.stats.leave()
	var y eventfd.Yielder // rarely: a yield is expensive for a goroutine locked to its thread
	for !v.halt.Load() {
		y.Yield()
		exit, err := v.cpu.Run()
		switch err {
		case nil:
			v.stats.count(exit)
			err = v.handle(exit)
		case kvm.ErrKicked:
			err = v.makeCalls()
		}
		if err == errStop {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// makeCalls makes the pending calls and, while paused, later ones.
func (v *vcpu) makeCalls() error {
	for v.paused || len(v.calls) > 0 {
		c := <-v.calls
		err := c.f()
		c.done <- err
		if err == errStop {
			return err
		}
	}
	return nil
}

// handle handles one exit. Its errors end the machine.
func (v *vcpu) handle(e kvm.Exit) error {
	switch e.Reason {
	case kvm.ExitIO:
		// REP INS and OUTS arrive as one exit with many elements.
		for d := e.Data; len(d) > 0; d = d[e.Size:] {
			access(v.ports, e.Addr, d[:e.Size], e.Write)
		}
	case kvm.ExitMMIO:
		access(v.memory, e.Addr, e.Data, e.Write)
	case kvm.ExitIntr:
	case kvm.ExitShutdown:
		return &endError{End{Reason: TripleFault}}
	default:
		return &CPUError{Exit: e.Reason, Code: e.Code, Data: append([]byte(nil), e.Data...)}
	}
	return nil
}

func access(b *bus.Bus, addr uint64, p []byte, write bool) {
	if write {
		b.Write(addr, p)
	} else {
		b.Read(addr, p)
	}
}

// CPUError is an exit after which KVM cannot continue the guest: an instruction that
// it cannot emulate, or a state that the hardware rejects.
type CPUError struct {
	CPU  int
	Exit kvm.Reason
	Code uint64 // KVM_INTERNAL_ERROR_*, or the hardware's reason
	RIP  uint64
	Data []byte // for an internal error: KVM's data
}

func (e *CPUError) Error() string {
	what := fmt.Sprintf("%s %#x", e.Exit, e.Code)
	if e.Exit == kvm.ExitInternalError && e.Code == kvm.InternalErrorEmulation {
		what = "KVM cannot emulate the instruction"
		if n := len(e.Data); n >= 24 { // flags, then the size and up to 15 bytes of the instruction
			if size := min(int(e.Data[8]), 15, n-9); size > 0 {
				what += fmt.Sprintf(" % x", e.Data[9:9+size])
			}
		}
	}
	return fmt.Sprintf("vCPU %d: %s, at RIP %#x", e.CPU, what, e.RIP)
}

// nameThread names the calling thread, with at most 15 bytes, for top and ps. The
// caller has locked it to its goroutine. (The first thread's name is the process's: a
// program that cares locks main's goroutine to that thread.)
func nameThread(name string) {
	os.WriteFile("/proc/thread-self/comm", []byte(name), 0) // nothing depends on it
}

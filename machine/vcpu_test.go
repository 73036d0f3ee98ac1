package machine

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmm/bus"
	"vmm/kvm"
	"vmm/test/allow"
)

// fakeCPU exits with what next returns, until kicked.
type fakeCPU struct {
	kicks chan struct{}
	next  func() (kvm.Exit, error)
	bound atomic.Int32
}

func newFake(next func() (kvm.Exit, error)) *fakeCPU {
	return &fakeCPU{kicks: make(chan struct{}, 1), next: next}
}

func (f *fakeCPU) Bind()   { f.bound.Add(1) }
func (f *fakeCPU) Unbind() { f.bound.Add(-1) }

func (f *fakeCPU) Run() (kvm.Exit, error) {
	select {
	case <-f.kicks:
		return kvm.Exit{}, kvm.ErrKicked
	default:
		return f.next()
	}
}

func (f *fakeCPU) Kick() {
	select {
	case f.kicks <- struct{}{}:
	default:
	}
}

// recorder is a device that records its accesses.
type recorder struct {
	mu     sync.Mutex
	writes []string
	n      atomic.Int64
}

func (r *recorder) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = byte(off) + byte(i)
	}
}

func (r *recorder) Write(off uint64, p []byte) {
	r.n.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.writes) < 10 {
		r.writes = append(r.writes, string(p))
	}
}

func start(t *testing.T, next func() (kvm.Exit, error)) (*vcpu, *recorder, chan error) {
	var ports, memory bus.Bus
	r := new(recorder)
	if err := errors.Join(ports.Map(0x10, 8, r), memory.Map(0x1000, 0x1000, r)); err != nil {
		t.Fatal(err)
	}
	v := newVCPU(newFake(next), &ports, &memory, new(atomic.Bool))
	end := make(chan error, 1)
	go func() { end <- v.loop() }()
	return v, r, end
}

func wait(t *testing.T, end chan error) error {
	select {
	case err := <-end:
		return err
	case <-time.After(allow.Time(10 * time.Second)):
		t.Fatal("the loop does not end")
		return nil
	}
}

func write(data string) func() (kvm.Exit, error) {
	return func() (kvm.Exit, error) {
		return kvm.Exit{Reason: kvm.ExitIO, Addr: 0x10, Data: []byte(data), Size: 1, Write: true}, nil
	}
}

// TestLoopPause: between pause and resume the vCPU does not run, but calls still do.
func TestLoopPause(t *testing.T) {
	v, r, end := start(t, write("x"))
	for range 200 {
		if err := v.pause(); err != nil {
			t.Fatal(err)
		}
		before := r.n.Load()
		ran := false
		if err := v.do(func() error { ran = true; return nil }); err != nil || !ran {
			t.Fatalf("a call while paused: %v", err)
		}
		if now := r.n.Load(); now != before {
			t.Fatalf("%d accesses while paused", now-before)
		}
		if err := v.resume(); err != nil {
			t.Fatal(err)
		}
	}
	v.stop()
	if err := wait(t, end); err != nil {
		t.Fatal(err)
	}
	if v.cpu.(*fakeCPU).bound.Load() != 0 {
		t.Error("the thread is still bound")
	}
}

// TestLoopEnded: calls to a loop that has ended, or that ends meanwhile, return.
func TestLoopEnded(t *testing.T) {
	for range 100 {
		v, _, end := start(t, func() (kvm.Exit, error) { return kvm.Exit{Reason: kvm.ExitShutdown}, nil })
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				for v.pause() == nil {
					v.resume()
				}
			})
		}
		callers.Wait()
		var e *endError
		if err := wait(t, end); !errors.As(err, &e) || e.end.Reason != TripleFault {
			t.Fatal(err)
		}
		if err := v.pause(); err != errEnded {
			t.Fatalf("pause after the end: %v", err)
		}
	}
}

func TestLoopHalt(t *testing.T) {
	v, _, end := start(t, write("x"))
	v.halt.Store(true)
	if err := wait(t, end); err != nil {
		t.Error(err)
	}
}

func TestExits(t *testing.T) {
	var exits []kvm.Exit
	read := make([]byte, 2)
	exits = append(exits,
		kvm.Exit{Reason: kvm.ExitIO, Addr: 0x10, Data: []byte("abcd"), Size: 2, Write: true}, // REP OUTSW, twice
		kvm.Exit{Reason: kvm.ExitMMIO, Addr: 0x1000, Data: []byte("mmio"), Size: 4, Write: true},
		kvm.Exit{Reason: kvm.ExitMMIO, Addr: 0x1004, Data: read, Size: 2},
		kvm.Exit{Reason: kvm.ExitIntr},
		kvm.Exit{Reason: kvm.ExitInternalError, Code: kvm.InternalErrorEmulation,
			Data: []byte{1, 0, 0, 0, 0, 0, 0, 0, 2, 0x0f, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
	)
	_, r, end := start(t, func() (kvm.Exit, error) {
		e := exits[0]
		exits = exits[1:]
		return e, nil
	})
	err := wait(t, end)
	var bad *CPUError
	if !errors.As(err, &bad) || bad.Error() != "vCPU 0: KVM cannot emulate the instruction 0f 0b, at RIP 0x0" {
		t.Errorf("the end: %v", err)
	}
	if got := r.writes; len(got) != 3 || got[0] != "ab" || got[1] != "cd" || got[2] != "mmio" {
		t.Errorf("writes %q", got)
	}
	if read[0] != 4 || read[1] != 5 {
		t.Errorf("read % x", read)
	}
}

func TestLoopNoAllocation(t *testing.T) {
	var ports, memory bus.Bus
	ports.Map(0x10, 8, nullDevice{})
	v := newVCPU(nil, &ports, &memory, new(atomic.Bool))
	e := kvm.Exit{Reason: kvm.ExitIO, Addr: 0x10, Data: make([]byte, 4), Size: 4, Write: true}
	if n := testing.AllocsPerRun(100, func() { v.handle(e) }); n != 0 {
		t.Errorf("%v allocations an exit", n)
	}
}

type nullDevice struct{}

func (nullDevice) Read(uint64, []byte)  {}
func (nullDevice) Write(uint64, []byte) {}

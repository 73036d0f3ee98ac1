package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"vmm/bus"
	"vmm/guest/payload"
	"vmm/kvm"
	"vmm/mem"
)

const (
	pioPort   = 0x80
	pioExits  = 20_000 // 57 µs each on a host without VT-x, 1 µs with VT-x
	pioWarmUp = 1000
	pioMemory = 2 << 20
	pioLimit  = 30 * time.Second // deadline of a run, which takes less than one
)

// newPIO compares an exit to a port and back: the work of machine's loop in Go
// (kvm.VCPU.Run, halt flag, bus, device), and the same guest run by a bare loop in C.
// The guest is in ring 3, so it runs at native speed everywhere.
func newPIO(f files) *report {
	r := &report{Bench: "pio", Unit: "ns", against: []string{"c"}, parts: []string{"allocations/exit"}, Notes: []string{
		fmt.Sprintf("A guest writes a byte to port %#x; from there to the device and back, mean of %d exits a run.", pioPort, pioExits),
		"allocations: on Go's heap, by all goroutines, ReadMemStats's own among them.",
	}}
	r.Entries = []*entry{
		{Name: "c", Note: "ioctl(KVM_RUN) in a loop, cc -O2: test/bench/native/pio.c", measure: func(ctx context.Context) (run, error) { return pioC(ctx, f) }},
		{Name: "go", Note: "kvm.VCPU.Run, bus.Write and a device, as machine's loop does", measure: pioGo},
	}
	return r
}

// ring3Guest is one vCPU and its code, without a kernel.
type ring3Guest struct {
	vm    *kvm.VM
	cpu   *kvm.VCPU
	mem   *mem.Memory
	regs  kvm.Regs
	sregs kvm.Sregs
}

// newPIOGuest returns a guest that writes to the port forever.
func newPIOGuest() (*ring3Guest, error) {
	return newRing3Guest(payload.Forever(payload.Out8(pioPort, 'x')))
}

func newRing3Guest(code []byte) (g *ring3Guest, err error) {
	sys, err := kvm.Open(kvm.Device)
	if err != nil {
		return nil, err
	}
	defer sys.Close()
	g = &ring3Guest{}
	if g.vm, err = sys.CreateVM(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if err := errors.Join(g.vm.SetIdentityMapAddr(0xfffbc000), g.vm.SetTSSAddr(0xfffbd000), g.vm.CreateIRQChip(), g.vm.CreatePIT2()); err != nil {
		return nil, err
	}
	if g.mem, err = mem.Map(mem.Range{Base: 0, Size: pioMemory}); err != nil {
		return nil, err
	}
	if err := g.vm.SetUserMemoryRegion(0, 0, 0, g.mem.Regions()[0].Bytes); err != nil {
		return nil, err
	}
	if g.cpu, err = g.vm.CreateVCPU(0); err != nil {
		return nil, err
	}
	return g, g.setUp(sys, code)
}

func (g *ring3Guest) setUp(sys *kvm.System, code []byte) error {
	cpuid, err := sys.SupportedCPUID()
	if err != nil {
		return err
	}
	base, err := g.cpu.Sregs()
	if err != nil {
		return err
	}
	if g.regs, g.sregs, err = payload.Ring3(g.mem, code, base); err != nil {
		return err
	}
	return errors.Join(g.cpu.SetCPUID(cpuid), g.cpu.SetSregs(g.sregs), g.cpu.SetRegs(g.regs))
}

func (g *ring3Guest) close() {
	if g.cpu != nil {
		g.cpu.Close()
	}
	g.vm.Close()
	if g.mem != nil {
		g.mem.Close()
	}
}

// image returns the guest in the file format of pio.c.
func (g *ring3Guest) image() ([]byte, error) {
	ram, err := g.mem.Slice(0, pioMemory)
	if err != nil {
		return nil, err
	}
	b := bytes.NewBuffer(bytes.Clone(ram))
	err = errors.Join(binary.Write(b, binary.NativeEndian, g.regs), binary.Write(b, binary.NativeEndian, g.sregs))
	return b.Bytes(), err
}

// latch is a device that takes a byte.
type latch struct{ value atomic.Uint32 }

func (l *latch) Read(_ uint64, p []byte)  { p[0] = byte(l.value.Load()) }
func (l *latch) Write(_ uint64, p []byte) { l.value.Store(uint32(p[0])) }

func pioGo(ctx context.Context) (run, error) {
	g, err := newPIOGuest()
	if err != nil {
		return run{}, err
	}
	defer g.close()
	var ports bus.Bus
	if err := ports.Map(pioPort, 1, &latch{}); err != nil {
		return run{}, err
	}
	return g.measure(ctx, "allocations/exit", pioExits, func(halt *atomic.Bool) error {
		return exits(g.cpu, &ports, halt, pioWarmUp)
	}, func(halt *atomic.Bool) error {
		return exits(g.cpu, &ports, halt, pioExits)
	})
}

// measure times n operations of the guest, and counts their allocations, as part. It
// runs on this thread. halt is set if they take too long, because the guest cannot end
// by itself.
func (g *ring3Guest) measure(ctx context.Context, part string, n int, warmUp, operations func(halt *atomic.Bool) error) (run, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g.cpu.Bind()
	defer g.cpu.Unbind()
	var halt atomic.Bool
	defer time.AfterFunc(pioLimit, func() { halt.Store(true); g.cpu.Kick() }).Stop()
	if err := warmUp(&halt); err != nil {
		return run{}, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	err := operations(&halt)
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	parts := map[string]float64{part: float64(after.Mallocs-before.Mallocs) / float64(n)}
	return run{Value: float64(took.Nanoseconds()) / float64(n), Parts: parts}, errors.Join(err, ctx.Err())
}

// exits is the part of machine's loop that handles a port access.
func exits(cpu *kvm.VCPU, ports *bus.Bus, halt *atomic.Bool, n int) error {
	for i := 0; i < n && !halt.Load(); i++ {
		e, err := cpu.Run()
		if err != nil {
			return err
		}
		if e.Reason != kvm.ExitIO || e.Addr != pioPort || !e.Write {
			return fmt.Errorf("exit %v at %#x instead of a write to port %#x", e.Reason, e.Addr, pioPort)
		}
		for d := e.Data; len(d) > 0; d = d[e.Size:] {
			ports.Write(e.Addr, d[:e.Size])
		}
	}
	if halt.Load() {
		return fmt.Errorf("no %d exits within %v", n, pioLimit)
	}
	return nil
}

func pioC(ctx context.Context, f files) (run, error) {
	ctx, cancel := context.WithTimeout(ctx, pioLimit)
	defer cancel()
	g, err := newPIOGuest()
	if err != nil {
		return run{}, err
	}
	image, err := g.image()
	g.close()
	if err != nil {
		return run{}, err
	}
	path := filepath.Join(f.scratch, "image")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		return run{}, err
	}
	out, err := exec.CommandContext(ctx, f.pio, path, strconv.Itoa(pioExits)).Output()
	if err != nil {
		return run{}, fmt.Errorf("%s: %w", f.pio, err)
	}
	ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return run{Value: ns}, err
}

package kvm_test

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"

	"vmm/guest/payload"
	"vmm/kvm"
	"vmm/mem"
	"vmm/test/allow"
)

// guest is a vCPU with 2 MiB of RAM that runs a ring-3 payload.
type guest struct {
	vm  *kvm.VM
	cpu *kvm.VCPU
	mem *mem.Memory
}

func open(t testing.TB) *kvm.System {
	sys, err := kvm.Open(kvm.Device)
	if err != nil {
		t.Skipf("no KVM: %v", err)
	}
	t.Cleanup(func() { sys.Close() })
	return sys
}

func newGuest(t testing.TB, code []byte) *guest {
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	sys := open(t)
	vm, err := sys.CreateVM()
	must(err)
	must(vm.SetTSSAddr(0xfffbd000))
	must(vm.SetIdentityMapAddr(0xfffbc000))
	must(vm.CreateIRQChip())
	must(vm.CreatePIT2())
	m, err := mem.Map(mem.Range{Base: 0, Size: 2 << 20})
	must(err)
	must(vm.SetUserMemoryRegion(0, 0, 0, m.Regions()[0].Bytes))
	cpu, err := vm.CreateVCPU(0)
	must(err)
	cpuid, err := sys.SupportedCPUID()
	must(err)
	must(cpu.SetCPUID(cpuid))
	base, err := cpu.Sregs()
	must(err)
	regs, sregs, err := payload.Ring3(m, code, base)
	must(err)
	must(cpu.SetSregs(sregs))
	must(cpu.SetRegs(regs))
	runtime.LockOSThread()
	cpu.Bind()
	t.Cleanup(func() {
		cpu.Unbind()
		runtime.UnlockOSThread()
		must(cpu.Close())
		must(vm.Close())
		must(m.Close())
	})
	return &guest{vm, cpu, m}
}

// exit runs the guest to its next exit. The payloads end at a deadline because
// a watchdog kicks them.
func (g *guest) exit(t testing.TB) kvm.Exit {
	watchdog := time.AfterFunc(allow.Time(10*time.Second), g.cpu.Kick)
	defer watchdog.Stop()
	e, err := g.cpu.Run()
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
	return e
}

func TestAccesses(t *testing.T) {
	const hole, far = 0x4000_0000, 0xd000_0010
	g := newGuest(t, payload.Code(
		payload.Out8(0x3f8, 'A'),
		payload.Out32(0xcf8, 0x80001234),
		payload.In8(0x3fd, uint32(payload.Data)),
		payload.OutString(0x3f8, uint32(payload.Data)+0x100, 5),
		payload.Store32(hole, 0x11223344),
		payload.LoadFar32(far, uint32(payload.Data)+8),
		payload.Out8(0x80, 0),
	))
	g.mem.Write(payload.Data+0x100, []byte("hello"))
	expect := func(reason kvm.Reason, addr uint64, write bool, size int, data string) {
		t.Helper()
		e := g.exit(t)
		if e.Reason != reason || e.Addr != addr || e.Write != write || e.Size != size {
			t.Fatalf("exit %+v, want %v at %#x, write %v, size %d", e, reason, addr, write, size)
		}
		if write && string(e.Data) != data {
			t.Fatalf("exit %v at %#x writes % x, want % x", reason, addr, e.Data, data)
		} else if !write {
			copy(e.Data, data)
		}
	}
	expect(kvm.ExitIO, 0x3f8, true, 1, "A")
	expect(kvm.ExitIO, 0xcf8, true, 4, "\x34\x12\x00\x80")
	expect(kvm.ExitIO, 0x3fd, false, 1, "\x60")
	// KVM splits REP OUTS into exits with any number of elements.
	var got []byte
	for len(got) < 5 {
		e := g.exit(t)
		if e.Reason != kvm.ExitIO || e.Addr != 0x3f8 || !e.Write || e.Size != 1 {
			t.Fatalf("exit %+v in the string", e)
		}
		got = append(got, e.Data...)
	}
	if string(got) != "hello" {
		t.Fatalf("the string was %q", got)
	}
	expect(kvm.ExitMMIO, hole, true, 4, "\x44\x33\x22\x11")
	expect(kvm.ExitMMIO, far, false, 4, "virt")
	expect(kvm.ExitIO, 0x80, true, 1, "\x00")
	b, _ := g.mem.Slice(payload.Data, 12)
	if b[0] != 0x60 || !bytes.Equal(b[8:], []byte("virt")) {
		t.Errorf("the guest read % x", b)
	}
}

// TestKick kicks a guest that never exits, before and during Run.
func TestKick(t *testing.T) {
	g := newGuest(t, payload.Forever(payload.Increment(uint32(payload.Data))))
	for range 100 {
		g.cpu.Kick() // not lost although the vCPU does not run
		if _, err := g.cpu.Run(); err != kvm.ErrKicked {
			t.Fatalf("Run after a kick: %v", err)
		}
		kicker := time.AfterFunc(100*time.Microsecond, g.cpu.Kick)
		if _, err := g.cpu.Run(); err != kvm.ErrKicked {
			t.Fatalf("Run: %v", err)
		}
		kicker.Stop()
	}
	if b, _ := g.mem.Slice(payload.Data, 8); bytes.Equal(b, make([]byte, 8)) {
		t.Error("the guest never ran")
	}
}

func TestKickAfterClose(t *testing.T) {
	g := newGuest(t, payload.Spin())
	if err := g.cpu.Close(); err != nil {
		t.Fatal(err)
	}
	g.cpu.Kick() // would fault on the unmapped page
}

func TestState(t *testing.T) {
	g := newGuest(t, payload.Spin())
	regs, err := g.cpu.Regs()
	if err != nil || regs.RIP != uint64(payload.Origin) {
		t.Fatalf("Regs: %+v, %v", regs, err)
	}
	msrs := []kvm.MSR{{Index: 0x174, Data: 0x10}, {Index: 0x277, Data: 0x0007040600070406}} // SYSENTER_CS, PAT
	if err := g.cpu.SetMSRs(msrs); err != nil {
		t.Fatal(err)
	}
	got := []kvm.MSR{{Index: 0x174}, {Index: 0x277}}
	if err := g.cpu.MSRs(got); err != nil || got[0].Data != 0x10 {
		t.Errorf("MSRs: %+v, %v", got, err)
	}
	if err := g.cpu.MSRs([]kvm.MSR{{Index: 0x174}, {Index: 0xdead_beef}}); err == nil {
		t.Error("an MSR that does not exist was read")
	}
	lapic, err := g.cpu.LAPIC()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cpu.SetLAPIC(lapic); err != nil {
		t.Error(err)
	}
	if s, err := g.cpu.MPState(); err != nil || s != kvm.MPRunnable {
		t.Errorf("MPState %d, %v", s, err)
	}
	if khz, err := g.cpu.TSCKHz(); err != nil || khz <= 0 {
		t.Errorf("TSCKHz %d, %v", khz, err)
	}
}

// TestSetMSRsOfAll: vCPUs of several machines may write the same list. The race
// detector notices if a call changes it.
func TestSetMSRsOfAll(t *testing.T) {
	sys := open(t)
	list := []kvm.MSR{{Index: 0x2ff, Data: 0xc06}} // MTRR_DEF_TYPE
	var done sync.WaitGroup
	defer done.Wait()
	for range 2 {
		vm, err := sys.CreateVM()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { vm.Close() })
		cpu, err := vm.CreateVCPU(0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cpu.Close() })
		done.Go(func() {
			if err := cpu.SetMSRs(list); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNoAllocation: exits and interrupts do not allocate.
func TestNoAllocation(t *testing.T) {
	g := newGuest(t, payload.Forever(payload.Out8(0x80, 1)))
	if n := testing.AllocsPerRun(200, func() { g.exit0(t) }); n != 0 {
		t.Errorf("%v allocations an exit", n)
	}
	if n := testing.AllocsPerRun(200, func() { g.vm.IRQLine(4, true); g.vm.IRQLine(4, false) }); n != 0 {
		t.Errorf("%v allocations an interrupt", n)
	}
}

// exit0 is exit without a watchdog, for counting allocations or time.
func (g *guest) exit0(t testing.TB) {
	if e, err := g.cpu.Run(); err != nil || e.Reason != kvm.ExitIO {
		t.Fatal(e, err)
	}
}

// BenchmarkPIO measures the round trip of a port write: guest, kernel, Go, and back.
func BenchmarkPIO(b *testing.B) {
	g := newGuest(b, payload.Forever(payload.Out8(0x80, 1)))
	b.ReportAllocs()
	for b.Loop() {
		g.exit0(b)
	}
}

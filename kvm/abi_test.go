package kvm

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	peer "github.com/bobuhiro11/gokvm/kvm"
)

// abi pairs each of our numbers with the C expression that must equal it.
var abi = []struct {
	c    string
	ours uint64
}{
	{"KVM_API_VERSION", Version},
	{"KVM_GET_API_VERSION", reqGetAPIVersion},
	{"KVM_CREATE_VM", reqCreateVM},
	{"KVM_CHECK_EXTENSION", reqCheckExtension},
	{"KVM_GET_VCPU_MMAP_SIZE", reqGetVCPUMmapSize},
	{"KVM_GET_SUPPORTED_CPUID", reqGetSupportedCPUID},
	{"KVM_CREATE_VCPU", reqCreateVCPU},
	{"KVM_SET_USER_MEMORY_REGION", reqSetUserMemoryRegion},
	{"KVM_SET_TSS_ADDR", reqSetTSSAddr},
	{"KVM_SET_IDENTITY_MAP_ADDR", reqSetIdentityMapAddr},
	{"KVM_CREATE_IRQCHIP", reqCreateIRQChip},
	{"KVM_IRQ_LINE", reqIRQLine},
	{"KVM_SET_GSI_ROUTING", reqSetGSIRouting},
	{"KVM_IRQFD", reqIRQFD},
	{"KVM_CREATE_PIT2", reqCreatePIT2},
	{"KVM_IOEVENTFD", reqIOEventFD},
	{"KVM_RUN", reqRun},
	{"KVM_GET_REGS", reqGetRegs},
	{"KVM_SET_REGS", reqSetRegs},
	{"KVM_GET_SREGS", reqGetSregs},
	{"KVM_SET_SREGS", reqSetSregs},
	{"KVM_GET_MSRS", reqGetMSRs},
	{"KVM_SET_MSRS", reqSetMSRs},
	{"KVM_GET_LAPIC", reqGetLAPIC},
	{"KVM_SET_LAPIC", reqSetLAPIC},
	{"KVM_SET_CPUID2", reqSetCPUID2},
	{"KVM_GET_MP_STATE", reqGetMPState},
	{"KVM_GET_TSC_KHZ", reqGetTSCKHz},
	{"KVM_KVMCLOCK_CTRL", reqKVMClockCtrl},
	{"KVM_SET_CLOCK", reqSetClock},
	{"KVM_GET_CLOCK", reqGetClock},
	{"KVM_GET_PIT2", reqGetPIT2},
	{"KVM_SET_PIT2", reqSetPIT2},
	{"KVM_SET_DEVICE_ATTR", reqSetDeviceAttr},
	{"KVM_GET_DEVICE_ATTR", reqGetDeviceAttr},
	{"KVM_VCPU_TSC_CTRL", vcpuTSCCtrl},
	{"KVM_VCPU_TSC_OFFSET", vcpuTSCOffset},
	{"KVM_CAP_IRQCHIP", uint64(CapIRQChip)},
	{"KVM_CAP_USER_MEMORY", uint64(CapUserMemory)},
	{"KVM_CAP_SET_TSS_ADDR", uint64(CapSetTSSAddr)},
	{"KVM_CAP_EXT_CPUID", uint64(CapExtCPUID)},
	{"KVM_CAP_NR_VCPUS", uint64(CapNRVCPUs)},
	{"KVM_CAP_MP_STATE", uint64(CapMPState)},
	{"KVM_CAP_IRQ_ROUTING", uint64(CapIRQRouting)},
	{"KVM_CAP_IRQFD", uint64(CapIRQFD)},
	{"KVM_CAP_PIT2", uint64(CapPIT2)},
	{"KVM_CAP_IOEVENTFD", uint64(CapIOEventFD)},
	{"KVM_CAP_SET_IDENTITY_MAP_ADDR", uint64(CapSetIdentityMap)},
	{"KVM_CAP_MAX_VCPUS", uint64(CapMaxVCPUs)},
	{"KVM_CAP_TSC_DEADLINE_TIMER", uint64(CapTSCDeadlineTimer)},
	{"KVM_CAP_IMMEDIATE_EXIT", uint64(CapImmediateExit)},
	{"KVM_IRQFD_FLAG_DEASSIGN", irqFDDeassign},
	{"KVM_IOEVENTFD_FLAG_DATAMATCH", ioEventFDDatamatch},
	{"KVM_IOEVENTFD_FLAG_PIO", ioEventFDPIO},
	{"KVM_IOEVENTFD_FLAG_DEASSIGN", ioEventFDDeassign},
	{"KVM_PIT_SPEAKER_DUMMY", pitSpeakerDummy},
	{"KVM_IRQ_ROUTING_IRQCHIP", routingIRQChip},
	{"KVM_IRQ_ROUTING_MSI", routingMSI},
	{"KVM_IRQCHIP_IOAPIC", chipIOAPIC},
	{"KVM_IOAPIC_NUM_PINS", IOAPICPins},
	{"KVM_CPUID_FLAG_SIGNIFCANT_INDEX", CPUIDSignificantIndex},
	{"KVM_EXIT_UNKNOWN", uint64(ExitUnknown)},
	{"KVM_EXIT_IO", uint64(ExitIO)},
	{"KVM_EXIT_IO_OUT", 1},
	{"KVM_EXIT_HLT", uint64(ExitHLT)},
	{"KVM_EXIT_MMIO", uint64(ExitMMIO)},
	{"KVM_EXIT_SHUTDOWN", uint64(ExitShutdown)},
	{"KVM_EXIT_FAIL_ENTRY", uint64(ExitFailEntry)},
	{"KVM_EXIT_INTR", uint64(ExitIntr)},
	{"KVM_EXIT_INTERNAL_ERROR", uint64(ExitInternalError)},
	{"KVM_EXIT_SYSTEM_EVENT", uint64(ExitSystemEvent)},
	{"KVM_INTERNAL_ERROR_EMULATION", InternalErrorEmulation},
	{"sizeof(struct kvm_userspace_memory_region)", size[userMemoryRegion]()},
	{"sizeof(struct kvm_irq_level)", size[irqLevel]()},
	{"sizeof(struct kvm_irqfd)", size[irqFD]()},
	{"sizeof(struct kvm_ioeventfd)", size[ioEventFD]()},
	{"sizeof(struct kvm_pit_config)", size[pitConfig]()},
	{"sizeof(struct kvm_irq_routing_entry)", size[irqRoutingEntry]()},
	{"sizeof(struct kvm_regs)", size[Regs]()},
	{"sizeof(struct kvm_segment)", size[Segment]()},
	{"sizeof(struct kvm_dtable)", size[DTable]()},
	{"sizeof(struct kvm_sregs)", size[Sregs]()},
	{"sizeof(struct kvm_msr_entry)", size[MSR]()},
	{"sizeof(struct kvm_cpuid_entry2)", size[CPUIDEntry]()},
	{"sizeof(struct kvm_lapic_state)", size[LAPIC]()},
	{"sizeof(struct kvm_mp_state)", size[MPState]()},
	{"sizeof(struct kvm_clock_data)", size[clockData]()},
	{"sizeof(struct kvm_device_attr)", size[deviceAttribute]()},
	{"sizeof(struct kvm_pit_state2)", size[PIT]()},
	{"offsetof(struct kvm_clock_data, host_tsc)", offset[clockData]("HostTSC")},
	{"offsetof(struct kvm_device_attr, addr)", offset[deviceAttribute]("Addr")},
	{"offsetof(struct kvm_pit_state2, flags)", offset[PIT]("Flags")},
	{"offsetof(struct kvm_pit_channel_state, mode)", offset[PITChannel]("Mode")},
	{"offsetof(struct kvm_pit_channel_state, gate)", offset[PITChannel]("Gate")},
	{"offsetof(struct kvm_pit_channel_state, count_load_time)", offset[PITChannel]("CountLoadTime")},
	{"offsetof(struct kvm_sregs, gdt)", offset[Sregs]("GDT")},
	{"offsetof(struct kvm_sregs, efer)", offset[Sregs]("EFER")},
	{"offsetof(struct kvm_segment, l)", offset[Segment]("L")},
	{"offsetof(struct kvm_regs, rip)", offset[Regs]("RIP")},
	{"offsetof(struct kvm_ioeventfd, flags)", offset[ioEventFD]("Flags")},
	{"offsetof(struct kvm_cpuid2, entries)", offset[cpuid2]("Entries")},
	{"offsetof(struct kvm_msrs, entries)", offset[msrs]("Entries")},
	{"offsetof(struct kvm_irq_routing, entries)", offset[irqRouting]("Entries")},
	{"offsetof(struct kvm_run, immediate_exit)", runImmediateExit},
	{"offsetof(struct kvm_run, exit_reason)", runExitReason},
	{"offsetof(struct kvm_run, io.direction)", runIODirection},
	{"offsetof(struct kvm_run, io.size)", runIOSize},
	{"offsetof(struct kvm_run, io.port)", runIOPort},
	{"offsetof(struct kvm_run, io.count)", runIOCount},
	{"offsetof(struct kvm_run, io.data_offset)", runIODataOffset},
	{"offsetof(struct kvm_run, mmio.phys_addr)", runMMIOPhysAddr},
	{"offsetof(struct kvm_run, mmio.data)", runMMIOData},
	{"offsetof(struct kvm_run, mmio.len)", runMMIOLen},
	{"offsetof(struct kvm_run, mmio.is_write)", runMMIOIsWrite},
	{"offsetof(struct kvm_run, internal.suberror)", runCode},
	{"offsetof(struct kvm_run, fail_entry.hardware_entry_failure_reason)", runCode},
	{"offsetof(struct kvm_run, internal.ndata)", runNData},
	{"offsetof(struct kvm_run, internal.data)", runData},
}

func size[T any]() uint64 { return uint64(reflect.TypeFor[T]().Size()) }

func offset[T any](field string) uint64 {
	f, ok := reflect.TypeFor[T]().FieldByName(field)
	if !ok {
		panic("no field " + field)
	}
	return uint64(f.Offset)
}

// TestHeaders makes the C compiler check every number against the host's headers.
func TestHeaders(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	var src strings.Builder
	src.WriteString("#include <stddef.h>\n#include <linux/kvm.h>\n")
	for _, a := range abi {
		fmt.Fprintf(&src, "_Static_assert((unsigned long)(%s) == %#xUL, \"%s\");\n", a.c, a.ours, a.c)
	}
	cmd := exec.Command(cc, "-x", "c", "-c", "-o", filepath.Join(t.TempDir(), "abi.o"), "-")
	cmd.Stdin = strings.NewReader(src.String())
	if out, err := cmd.CombinedOutput(); strings.Contains(string(out), "linux/kvm.h: No such file") {
		t.Skip("no kernel headers")
	} else if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestPeer: gokvm reads, with its own numbers and layouts, what we wrote with ours,
// and vice versa.
func TestPeer(t *testing.T) {
	sys, err := Open(Device)
	if err != nil {
		t.Skipf("no KVM: %v", err)
	}
	defer sys.Close()
	for ours, theirs := range map[Cap]peer.Capability{
		CapIRQChip: peer.CapIRQChip, CapUserMemory: peer.CapUserMemory, CapSetTSSAddr: peer.CapSetTSSAddr,
		CapExtCPUID: peer.CapEXTCPUID, CapNRVCPUs: peer.CapNRVCPUS, CapMPState: peer.CapMPState,
		CapIRQRouting: peer.CapIRQRouting, CapIRQFD: peer.CapIRQFD, CapPIT2: peer.CapPIT2,
		CapIOEventFD: peer.CapIOEventFD, CapSetIdentityMap: peer.CapSetIdentityMapAddr,
	} {
		n, err := peer.CheckExtension(uintptr(sys.fd), theirs)
		if Cap(theirs) != ours || err != nil || int(n) != sys.Check(ours) {
			t.Errorf("capability %d: we say %d, the peer %d, %v", ours, sys.Check(ours), n, err)
		}
	}
	vm, err := sys.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if err := peer.SetTSSAddr(uintptr(vm.fd), 0xfffbd000); err != nil {
		t.Fatal(err)
	}
	if err := vm.CreateIRQChip(); err != nil {
		t.Fatal(err)
	}
	if err := peer.IRQLineStatus(uintptr(vm.fd), 4, 1); err != nil {
		t.Error(err)
	}
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		t.Fatal(err)
	}
	defer cpu.Close()
	peerRegisters(t, cpu)
	peerAPIC(t, cpu)
}

func peerRegisters(t *testing.T, cpu *VCPU) {
	fd := uintptr(cpu.fd)
	want := Regs{RAX: 1, RBX: 2, RCX: 3, RDX: 4, RSI: 5, RDI: 6, RSP: 7, RBP: 8, R8: 9, R9: 10, R10: 11, R11: 12, R12: 13, R13: 14, R14: 15, R15: 16, RIP: 17, RFlags: 2}
	if err := cpu.SetRegs(want); err != nil {
		t.Fatal(err)
	}
	r, err := peer.GetRegs(fd)
	if err != nil || fmt.Sprint(*r) != fmt.Sprint(want) {
		t.Errorf("registers: %v, the peer reads %v, %v", want, r, err)
	}
	s, err := cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	s.CR3, s.GDT.Base, s.CS.Base = 0x123000, 0x4000, 0x10000
	if err := cpu.SetSregs(s); err != nil {
		t.Fatal(err)
	}
	ps, err := peer.GetSregs(fd)
	if err != nil || ps.CR3 != s.CR3 || ps.GDT.Base != s.GDT.Base || ps.CS.Base != s.CS.Base || ps.EFER != s.EFER || ps.ApicBase != s.APICBase {
		t.Errorf("special registers: %+v, the peer reads %+v, %v", s, ps, err)
	}
	if err := peer.SetMSRs(fd, &peer.MSRS{NMSRs: 1, Entries: []peer.MSREntry{{Index: 0x174, Data: 0x42}}}); err != nil {
		t.Fatal(err)
	}
	m := []MSR{{Index: 0x174}}
	if err := cpu.MSRs(m); err != nil || m[0].Data != 0x42 {
		t.Errorf("MSR 0x174: the peer wrote 0x42, we read %#x, %v", m[0].Data, err)
	}
}

func peerAPIC(t *testing.T, cpu *VCPU) {
	fd := uintptr(cpu.fd)
	ours, err := cpu.LAPIC()
	if err != nil {
		t.Fatal(err)
	}
	var theirs peer.LAPICState
	if err := peer.GetLocalAPIC(fd, &theirs); err != nil || theirs.Regs != *ours {
		t.Errorf("the local APIC differs: %v", err)
	}
	var mp peer.MPState
	if err := peer.GetMPState(fd, &mp); err != nil {
		t.Fatal(err)
	}
	if s, err := cpu.MPState(); err != nil || uint32(s) != mp.State {
		t.Errorf("MP state %d, the peer's %d, %v", s, mp.State, err)
	}
	khz, err := peer.GetTSCKHz(fd)
	if n, err2 := cpu.TSCKHz(); err != nil || err2 != nil || uint64(n) != khz {
		t.Errorf("TSC at %d kHz, the peer's %d, %v, %v", n, khz, err, err2)
	}
}

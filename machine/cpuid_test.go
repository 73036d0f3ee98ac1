package machine

import (
	"testing"

	"vmm/kvm"
)

// Leaves as KVM reports them, reduced to those that depend on the machine.
var (
	intel = []kvm.CPUIDEntry{
		{Function: 0, EAX: 0x1f, EBX: 0x756e6547, ECX: 0x6c65746e, EDX: 0x49656e69},
		{Function: 1, EAX: 0xa0671, EBX: 0x05_10_08_00, ECX: 0, EDX: 0x0f8bfbff},
		{Function: 4, Index: 0, Flags: 1, EAX: 0xfc004121},
		{Function: 4, Index: 3, Flags: 1, EAX: 0xfc1fc163},
		{Function: 4, Index: 4, Flags: 1},
		{Function: 0xb, Index: 0, Flags: 1, EAX: 1, EBX: 2, ECX: 0x100, EDX: 77},
		{Function: 0xb, Index: 1, Flags: 1, EAX: 7, EBX: 128, ECX: 0x201, EDX: 77},
		{Function: 0x15},
		{Function: 0x1f, Index: 0, Flags: 1},
		{Function: 0x40000000, EAX: 0x40000001, EBX: 0x4b4d564b},
		{Function: 0x40000001, EAX: 0x01007efb},
		{Function: 0x80000008, EAX: 0x3039},
	}
	amd = []kvm.CPUIDEntry{
		{Function: 0, EAX: 0x10, EBX: 0x68747541, ECX: 0x444d4163, EDX: 0x69746e65},
		{Function: 1, EBX: 0x03_02_08_00, EDX: 0x178bfbff},
		{Function: 0xb, Index: 0, Flags: 1},
		{Function: 0x40000000, EAX: 0x40000001},
		{Function: 0x80000001, ECX: 0x75c237ff},
		{Function: 0x80000008, EAX: 0x3030, EBX: 0x111ef657, ECX: 0x703f},
		{Function: 0x8000001d, Index: 3, Flags: 1, EAX: 0x3c163},
		{Function: 0x8000001e, EAX: 3, EBX: 0x103, ECX: 0x7},
	}
)

func find(t *testing.T, entries []kvm.CPUIDEntry, function, index uint32) kvm.CPUIDEntry {
	t.Helper()
	for _, e := range entries {
		if e.Function == function && (e.Flags&kvm.CPUIDSignificantIndex == 0 || e.Index == index) {
			return e
		}
	}
	t.Fatalf("no leaf %#x.%d", function, index)
	return kvm.CPUIDEntry{}
}

func expect(t *testing.T, what string, got, want uint32) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %#x, want %#x", what, got, want)
	}
}

func TestCPUIDIntel(t *testing.T) {
	e := cpuid(intel, cpuidParams{id: 5, cpus: 6, tscKHz: 2_500_000, tscDeadline: true})
	one := find(t, e, 1, 0)
	expect(t, "1.EBX: id, ids, CLFLUSH", one.EBX, 0x05_08_08_00)
	expect(t, "1.ECX: TSC deadline, hypervisor", one.ECX, 1<<24|1<<31)
	expect(t, "1.EDX: HTT", one.EDX&(1<<28), 1<<28)
	expect(t, "4.0: cores of the package, threads of the cache", find(t, e, 4, 0).EAX, 7<<26|0<<14|0x121)
	expect(t, "4.3: the same of the last level", find(t, e, 4, 3).EAX, 7<<26|7<<14|0x163)
	expect(t, "4.4: the end", find(t, e, 4, 4).EAX, 0)
	for _, leaf := range []uint32{0xb, 0x1f} {
		smt, core, end := find(t, e, leaf, 0), find(t, e, leaf, 1), find(t, e, leaf, 2)
		expect(t, "threads: shift", smt.EAX, 0)
		expect(t, "threads: number", smt.EBX, 1)
		expect(t, "threads: type", smt.ECX, 0x100)
		expect(t, "cores: shift", core.EAX, 3)
		expect(t, "cores: number", core.EBX, 6)
		expect(t, "cores: type", core.ECX, 0x201)
		expect(t, "x2APIC id", core.EDX, 5)
		expect(t, "end: type", end.ECX, 2)
	}
	expect(t, "hypervisor: last leaf", find(t, e, 0x40000000, 0).EAX, 0x40000010)
	expect(t, "hypervisor: TSC", find(t, e, 0x40000010, 0).EAX, 2_500_000)
	expect(t, "hypervisor: APIC bus", find(t, e, 0x40000010, 0).EBX, 1_000_000)
	expect(t, "0x80000008.ECX is reserved", find(t, e, 0x80000008, 0).ECX, 0)
}

func TestCPUIDAMD(t *testing.T) {
	e := cpuid(amd, cpuidParams{id: 2, cpus: 4, tscKHz: 1_000_000})
	expect(t, "1.EBX", find(t, e, 1, 0).EBX, 0x02_04_08_00)
	expect(t, "1.ECX: no TSC deadline", find(t, e, 1, 0).ECX, 1<<31)
	expect(t, "0x80000001.ECX: CmpLegacy", find(t, e, 0x80000001, 0).ECX&2, 2)
	expect(t, "0x80000008.ECX: cores, width", find(t, e, 0x80000008, 0).ECX, 3|2<<12)
	expect(t, "0x8000001d: sharing of the last level", find(t, e, 0x8000001d, 3).EAX>>14, 3)
	top := find(t, e, 0x8000001e, 0)
	expect(t, "0x8000001e: id", top.EAX, 2)
	expect(t, "0x8000001e: core, one thread", top.EBX, 2)
	expect(t, "0x8000001e: node", top.ECX, 0)
	expect(t, "x2APIC id", find(t, e, 0xb, 1).EDX, 2)
}

func TestCPUIDOne(t *testing.T) {
	e := cpuid(intel, cpuidParams{cpus: 1})
	one := find(t, e, 1, 0)
	expect(t, "1.EBX", one.EBX, 0x00_01_08_00)
	expect(t, "1.EDX: no HTT", one.EDX&(1<<28), 0)
	expect(t, "cores: shift", find(t, e, 0xb, 1).EAX, 0)
	for _, x := range e {
		if x.Function == 0x40000010 {
			t.Error("a frequency that nobody knows")
		}
	}
}

// linuxTSC is what Linux's native_calibrate_tsc derives from leaf 0x15, in kHz and
// in 32 bits as there; 0 if Linux calibrates another way.
func linuxTSC(e kvm.CPUIDEntry) (kHz uint32) {
	if e.EAX == 0 || e.EBX == 0 {
		return 0
	}
	crystal := e.ECX / 1000
	return crystal * e.EBX / e.EAX
}

func TestCPUIDCrystal(t *testing.T) {
	for _, test := range []struct {
		name string
		from []kvm.CPUIDEntry
		p    cpuidParams
		want uint32
	}{
		{"2.5 GHz", intel, cpuidParams{cpus: 1, tscKHz: 2_500_000, tscDeadline: true}, 2_500_000},
		{"odd", intel, cpuidParams{cpus: 1, tscKHz: 2_499_998, tscDeadline: true}, 2_499_998},
		{"as fast as fits", intel, cpuidParams{cpus: 1, tscKHz: 4_294_967, tscDeadline: true}, 4_294_967},
		{"too fast", intel, cpuidParams{cpus: 1, tscKHz: 4_294_968, tscDeadline: true}, 0},
		{"unknown", intel, cpuidParams{cpus: 1, tscDeadline: true}, 0},
		// Linux would take the crystal for the local APIC timer's frequency.
		{"no TSC deadline", intel, cpuidParams{cpus: 1, tscKHz: 2_500_000}, 0},
		{"AMD", append(amd[:len(amd):len(amd)], kvm.CPUIDEntry{Function: 0x15, EAX: 3, EBX: 4}), cpuidParams{cpus: 1, tscKHz: 2_500_000, tscDeadline: true}, 0},
	} {
		leaf := find(t, cpuid(test.from, test.p), 0x15, 0)
		if got := linuxTSC(leaf); got != test.want {
			t.Errorf("%s: %d kHz, want %d (%+v)", test.name, got, test.want, leaf)
		}
		if test.want == 0 && leaf != (kvm.CPUIDEntry{Function: 0x15}) {
			t.Errorf("%s: %+v, want nothing", test.name, leaf)
		}
	}
}

// TestCPUIDNested: a guest sees VMX and SVM only where allowed, and never SGX.
func TestCPUIDNested(t *testing.T) {
	all := ^uint32(0)
	from := []kvm.CPUIDEntry{
		{Function: 1, ECX: all}, {Function: 7, Flags: 1, EBX: all, ECX: all},
		{Function: 0x12, Index: 0, Flags: 1, EAX: all, EBX: all, ECX: all, EDX: all},
		{Function: 0x12, Index: 2, Flags: 1, EAX: all, EBX: all, ECX: all, EDX: all},
		{Function: 0x80000001, ECX: all}, {Function: 0x8000000a, EAX: all, EBX: all, ECX: all, EDX: all},
	}
	for _, nested := range []bool{false, true} {
		e := cpuid(from, cpuidParams{cpus: 1, nested: nested})
		vmx, svm, leaf := uint32(1<<5), uint32(1<<2), all
		if !nested {
			vmx, svm, leaf = 0, 0, 0
		}
		expect(t, "VMX", find(t, e, 1, 0).ECX&(1<<5), vmx)
		expect(t, "SVM", find(t, e, 0x80000001, 0).ECX&(1<<2), svm)
		expect(t, "features of SVM", find(t, e, 0x8000000a, 0).EDX, leaf)
		expect(t, "others in leaf 7", find(t, e, 7, 0).EBX, all&^(1<<2))
		expect(t, "SGX_LC", find(t, e, 7, 0).ECX, all&^(1<<30))
		expect(t, "enclaves", find(t, e, 0x12, 0).EAX|find(t, e, 0x12, 2).EAX, 0)
	}
}

func TestPhysicalBits(t *testing.T) {
	for eax, want := range map[uint32]uint32{0x3039: 0x39, 0x27: 39, 0x30_39_34: 48, 0x34: 52} {
		if got := physicalBits([]kvm.CPUIDEntry{{Function: 0x80000008, EAX: eax}}); got != want {
			t.Errorf("%#x: %d, want %d", eax, got, want)
		}
	}
	if got := physicalBits(nil); got != 36 {
		t.Errorf("no leaf: %d", got)
	}
}

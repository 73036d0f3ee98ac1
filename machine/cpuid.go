package machine

import (
	"math"
	"math/bits"

	"vmm/kvm"
)

// cpuidParams is what a vCPU's CPUID reports beyond what KVM supplies.
type cpuidParams struct {
	id          uint32 // the vCPU's number, which is its x2APIC ID
	cpus        uint32 // vCPUs in the machine: cores of one package, one thread each
	tscKHz      uint32 // 0 if unknown
	tscDeadline bool   // KVM_CAP_TSC_DEADLINE_TIMER
	nested      bool   // the guest may run its own guests
	amd         bool   // or Hygon; from leaf 0
}

// Bits and leaves that we set: Intel SDM vol. 2A "CPUID", AMD APM vol. 3 appendix E.
const (
	leafFeatures    = 0x1
	leafCaches      = 0x4 // Intel
	leafExtended    = 0x7
	leafTopology    = 0xb  // both
	leafSGX         = 0x12 // Intel
	leafTSC         = 0x15 // Intel
	leafTopologyV2  = 0x1f // Intel
	leafHypervisor  = 0x4000_0000
	leafKVMClocks   = 0x4000_0010
	leafExtFeatures = 0x8000_0001
	leafExtSizes    = 0x8000_0008
	leafSVM         = 0x8000_000a // AMD
	leafExtCaches   = 0x8000_001d // AMD
	leafExtTopology = 0x8000_001e // AMD

	bit1ECXVMX         = 1 << 5
	bit1ECXTSCDeadline = 1 << 24
	bit1ECXHypervisor  = 1 << 31
	bit1EDXHTT         = 1 << 28
	bit7EBXSGX         = 1 << 2
	bit7ECXSGXLC       = 1 << 30
	bitExtECXCmpLegacy = 1 << 1 // AMD: HTT means cores, not threads
	bitExtECXSVM       = 1 << 2

	// apicBusKHz is the frequency of the local APIC's timer in KVM
	// (APIC_BUS_FREQUENCY).
	apicBusKHz = 1_000_000
)

// cpuid returns the CPUID leaves of one vCPU, derived from those that KVM supports.
// Feature bits come from KVM; values that depend on the vCPU and on the machine's
// topology are ours.
func cpuid(supported []kvm.CPUIDEntry, p cpuidParams) []kvm.CPUIDEntry {
	var out []kvm.CPUIDEntry
	topology := false
	p.amd = isAMD(supported)
	for _, e := range supported {
		switch e.Function {
		case leafTopology, leafTopologyV2:
			// KVM passes the host's; ours follow below.
			topology = topology || e.Function == leafTopology
			continue
		case leafKVMClocks:
			continue
		}
		patch(&e, p)
		out = append(out, e)
	}
	if topology {
		out = append(out, topologyLeaves(leafTopology, p)...)
	}
	if hasLeaf(supported, leafTopologyV2) {
		out = append(out, topologyLeaves(leafTopologyV2, p)...)
	}
	if p.tscKHz != 0 && hasLeaf(supported, leafHypervisor) {
		out = append(out, kvm.CPUIDEntry{Function: leafKVMClocks, EAX: p.tscKHz, EBX: apicBusKHz})
	}
	return out
}

// isAMD checks the vendor in leaf 0 for "AuthenticAMD" or "HygonGenuine".
func isAMD(entries []kvm.CPUIDEntry) bool {
	for _, e := range entries {
		if e.Function == 0 {
			return e.EBX == 0x6874_7541 || e.EBX == 0x6f67_7948
		}
	}
	return false
}

func hasLeaf(entries []kvm.CPUIDEntry, function uint32) bool {
	for _, e := range entries {
		if e.Function == function {
			return true
		}
	}
	return false
}

// patch adapts one leaf to the vCPU.
func patch(e *kvm.CPUIDEntry, p cpuidParams) {
	switch e.Function {
	case leafFeatures:
		// Local APIC ID, and the number of IDs that the package reserves.
		e.EBX = e.EBX&0x0000_ffff | min(p.reserved(), 255)<<16 | p.id<<24
		e.ECX |= bit1ECXHypervisor
		mask(&e.ECX, bit1ECXVMX, p.nested)
		setBit(&e.ECX, bit1ECXTSCDeadline, p.tscDeadline)
		setBit(&e.EDX, bit1EDXHTT, p.cpus > 1)
	case leafCaches:
		if level := e.EAX >> 5 & 7; level > 0 {
			e.EAX = e.EAX&0x3fff | p.sharing(level)<<14 | min(p.reserved()-1, 63)<<26
		}
	case leafExtended:
		// There is no enclave memory (EPC) here, nested or not.
		mask(&e.EBX, bit7EBXSGX, false)
		mask(&e.ECX, bit7ECXSGXLC, false)
	case leafSGX:
		e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0
	case leafSVM:
		if !p.nested {
			e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0
		}
	case leafTSC:
		e.EAX, e.EBX, e.ECX, e.EDX = p.crystal()
	case leafHypervisor:
		e.EAX = max(e.EAX, leafKVMClocks)
	case leafExtFeatures:
		setBit(&e.ECX, bitExtECXCmpLegacy, p.amd && p.cpus > 1)
		mask(&e.ECX, bitExtECXSVM, p.nested)
	case leafExtSizes:
		// Number of cores minus one, and the width of their IDs.
		if p.amd {
			e.ECX = min(p.cpus-1, 255) | p.shift()<<12
		}
	case leafExtCaches:
		if level := e.EAX >> 5 & 7; level > 0 {
			e.EAX = e.EAX&0x3fff | p.sharing(level)<<14
		}
	case leafExtTopology:
		// Extended APIC ID; core ID with one thread per core; node 0 of 1.
		e.EAX, e.EBX, e.ECX = p.id, p.id&0xff, 0
	}
}

// crystal returns leaf 0x15: the TSC's frequency is ECX * EBX / EAX Hz.
//
// Linux on Intel then skips calibration, but computes in 32 bits, in kHz
// (native_calibrate_tsc): a ratio other than 1 overflows, and its clock runs a
// thousand times too fast. It also takes the crystal, ECX, as the frequency of the
// local APIC's timer, but in KVM that timer runs at the APIC bus frequency, not the
// TSC's. This is harmless only if the timer uses TSC deadlines. So the leaf reports
// either a ratio of 1 or nothing.
func (p cpuidParams) crystal() (eax, ebx, ecx, edx uint32) {
	hz := uint64(p.tscKHz) * 1000
	if hz == 0 || hz > math.MaxUint32 || !p.tscDeadline || p.amd {
		return 0, 0, 0, 0
	}
	return 1, 1, uint32(hz), 0
}

// shift is the number of bits that hold a core's ID within the package.
func (p cpuidParams) shift() uint32 { return uint32(bits.Len32(p.cpus - 1)) }

// reserved is the number of IDs that these bits can distinguish.
func (p cpuidParams) reserved() uint32 { return 1 << p.shift() }

// sharing is the number of IDs, minus one, that share a cache of the given level: the
// last level belongs to the package, the others to one core.
func (p cpuidParams) sharing(level uint32) uint32 {
	if level < 3 {
		return 0
	}
	return min(p.reserved()-1, 0xfff)
}

// topologyLeaves returns the sub-leaves of 0xb and 0x1f: threads of a core, cores of
// the package, and the end.
func topologyLeaves(function uint32, p cpuidParams) []kvm.CPUIDEntry {
	const smt, core = 1 << 8, 2 << 8
	leaf := func(index, shift, count, kind uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{
			Function: function, Index: index, Flags: kvm.CPUIDSignificantIndex,
			EAX: shift, EBX: count, ECX: kind | index, EDX: p.id,
		}
	}
	return []kvm.CPUIDEntry{leaf(0, 0, 1, smt), leaf(1, p.shift(), p.cpus, core), leaf(2, 0, 0, 0)}
}

func setBit(r *uint32, mask uint32, on bool) {
	if *r &^= mask; on {
		*r |= mask
	}
}

// mask clears a feature bit unless it is allowed.
func mask(r *uint32, bit uint32, allowed bool) {
	if !allowed {
		*r &^= bit
	}
}

// physicalBits returns how many physical address bits the guest can use. If KVM can
// map fewer than the processor has, it says so in EAX[23:16].
func physicalBits(entries []kvm.CPUIDEntry) uint32 {
	for _, e := range entries {
		if e.Function == leafExtSizes {
			if guest := e.EAX >> 16 & 0xff; guest != 0 {
				return guest
			}
			return e.EAX & 0xff
		}
	}
	return 36 // SDM vol. 2A, CPUID: the width of a processor without the leaf
}

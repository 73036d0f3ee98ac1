package machine

import "vmm/mem"

// Every guest physical address, port and interrupt that the machine hands out.
// (What boot puts into the first MiB is in boot's own layout.)
//
//	0              RAM
//	0x000e_0000      ACPI tables (reserved in the memory map)
//	0xc000_0000    hole: devices
//	0xfec0_0000      I/O APIC            (in the kernel)
//	0xfee0_0000      local APICs         (in the kernel)
//	0xfffb_c000      identity map and TSS of VT-x
//	0x1_0000_0000  RAM, what did not fit below the hole
const (
	holeBase mem.Addr = 0xc000_0000
	highBase mem.Addr = 0x1_0000_0000

	acpiBase mem.Addr = 0xe_0000
	acpiSize          = 0x2_0000

	identityMapAddr = 0xfffb_c000 // one page, KVM_SET_IDENTITY_MAP_ADDR
	tssAddr         = 0xfffb_d000 // three pages, KVM_SET_TSS_ADDR
)

// Ports.
const (
	portI8042     = 0x60 // 0x61, which is in between, is the timer's, in the kernel
	portCMOS      = 0x70
	portCOM1      = 0x3f8
	portDebugExit = 0x501 // to 0x504; pvpanic follows at its customary 0x505
	portPM        = 0x600
)

// Inputs of the I/O APIC.
const (
	gsiCOM1        = 4
	gsiPowerButton = 9
)

// ranges returns where n bytes of RAM lie.
func ranges(n uint64) []mem.Range {
	low := min(n, uint64(holeBase))
	r := []mem.Range{{Base: 0, Size: low}}
	if n > low {
		r = append(r, mem.Range{Base: highBase, Size: n - low})
	}
	return r
}

package machine

import (
	"fmt"

	"vmm/devices/pci"
	"vmm/mem"
)

// Every guest physical address, port and interrupt that the machine hands out.
// (What boot puts into the first MiB is in boot's own layout.)
//
//	0              RAM
//	0x000e_0000      ACPI tables (reserved in the memory map)
//	0xc000_0000    hole: BARs of PCI devices
//	0xe000_0000      PCI's configuration space (ECAM)
//	0xfe00_0000      virtio-mmio, one page per device
//	0xfec0_0000      I/O APIC            (in the kernel)
//	0xfee0_0000      local APICs         (in the kernel)
//	0xfffb_c000      identity map and TSS of VT-x
//	0x1_0000_0000  RAM that does not fit below the hole
//	above that     64-bit BARs of PCI devices: 64 GiB, if the processor can address them
const (
	holeBase mem.Addr = 0xc000_0000
	highBase mem.Addr = 0x1_0000_0000

	acpiBase mem.Addr = 0xe_0000

	acpiSize = 0x2_0000

	ecamBase = 0xe000_0000
	mmioBase = 0xfe00_0000

	identityMapAddr = 0xfffb_c000 // one page, KVM_SET_IDENTITY_MAP_ADDR
	tssAddr         = 0xfffb_d000 // three pages, KVM_SET_TSS_ADDR
)

// I/O ports. Those of KVM's own interrupt controllers and timer also lie below
// portBARs.
const (
	portI8042     = 0x60 // 0x61, between the two ports, is the timer's, in the kernel
	portCMOS      = 0x70
	portCOM1      = 0x3f8
	portPCIConfig = 0xcf8
	portDebugExit = 0x501 // to 0x504; pvpanic follows at its customary 0x505
	portPM        = 0x600
	portBARs      = 0x1000 // and all above it: BARs of PCI devices
	portEnd       = 0x1_0000
)

// Inputs of the I/O APIC.
const (
	gsiKeyboard    = 1
	gsiCOM1        = 4
	gsiPowerButton = 9
	gsiINTx        = 16 // and all above it: INTA of PCI devices
)

// gsiMMIO are the inputs for virtio-mmio devices, in this order: first those that the
// PICs also have, for kernels without ACPI, except the ones a PC uses otherwise.
var gsiMMIO = []uint32{5, 6, 7, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}

// gsisOfPICs is the number of gsiMMIO entries that the PICs have.
const gsisOfPICs = 8

// ranges returns the address ranges of n bytes of RAM.
func ranges(n uint64) []mem.Range {
	low := min(n, uint64(holeBase))
	r := []mem.Range{{Base: 0, Size: low}}
	if n > low {
		r = append(r, mem.Range{Base: highBase, Size: n - low})
	}
	return r
}

// reachable returns a *ConfigError if n bytes of RAM end above the guest's highest
// physical address.
func reachable(n uint64, physicalBits uint32) error {
	top := ranges(n)
	if last := top[len(top)-1]; uint64(last.Base)+last.Size <= 1<<physicalBits {
		return nil
	}
	most := uint64(1)<<physicalBits - uint64(highBase-holeBase)
	return &ConfigError{"Memory", fmt.Sprintf("%d GiB; this host's processor gives a guest %d bits of physical address: at most %d GiB", n>>30, physicalBits, most>>30)}
}

// highWindow is the size of the window for 64-bit BARs.
const highWindow = 64 << 30

// pciWindows returns where BARs may be. The upper window is left out if the
// processor's physical addresses do not reach its end.
func pciWindows(memory uint64, physicalBits uint32) []pci.Window {
	w := []pci.Window{{Base: uint64(holeBase), End: ecamBase}, {Base: portBARs, End: portEnd, Ports: true}}
	high := uint64(highBase)
	if low := uint64(holeBase); memory > low {
		high += memory - low
	}
	high = (high + highWindow - 1) &^ (highWindow - 1)
	if end := high + highWindow; end <= 1<<physicalBits {
		w = append(w, pci.Window{Base: high, End: end})
	}
	return w
}

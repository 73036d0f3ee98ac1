package boot

import "vmm/mem"

// The layout of guest memory when the first vCPU starts. The kernel may reuse
// everything below 1 MiB once it has read it.
//
//	       0 +---------------------+
//	         | unused (BIOS data)  |
//	  0x1000 +---------------------+ gdtBase
//	         | GDT; TSS at 0x1800  |
//	  0x6000 +---------------------+ startInfoBase
//	         | PVH start_info      |
//	  0x7000 +---------------------+ zeroPageBase
//	         | boot_params         |
//	  0x9000 +---------------------+ pageTableBase
//	         | PML4, PDPT, 4 PDs   |
//	  0xf000 +---------------------+ seedBase
//	         | random seed         |
//	 0x10000 +---------------------+
//	         | unused              |
//	 0x20000 +---------------------+ cmdlineBase
//	         | command line        |
//	 0x30000 +---------------------+ lowEnd
//	         | unused              |
//	 0xa0000 +---------------------+ holeBase
//	         | video and BIOS hole | no RAM in the map; the machine's ACPI
//	         |                     | tables are here
//	0x100000 +---------------------+ holeEnd
//	         | unused              |
//	         +---------------------+ the kernel's own address, mostly 16 MiB
//	         | kernel              |
//	         +---------------------+
//	         | unused              |
//	         +---------------------+
//	         | initrds             | as high as the kernel allows, below 4 GiB
//	         +---------------------+ end of RAM, or initrd_addr_max + 1
const (
	gdtBase       mem.Addr = 0x1000
	tssBase       mem.Addr = 0x1800
	startInfoBase mem.Addr = 0x6000
	zeroPageBase  mem.Addr = 0x7000
	pageTableBase mem.Addr = 0x9000
	seedBase      mem.Addr = 0xf000
	cmdlineBase   mem.Addr = 0x20000
	lowEnd        mem.Addr = 0x30000
	holeBase      mem.Addr = 0xa0000
	holeEnd       mem.Addr = 0x100000
	fourGiB       mem.Addr = 4 << 30
)

// Our own limits. Kernels are untrusted input: nothing that a kernel says about itself
// may cost more than this.
const (
	headSize    = 32 << 10 // the real-mode code is at most 32 KiB (boot.rst)
	maxImage    = 1 << 30  // an unpacked kernel
	maxSegments = 64       // of an ELF kernel; Linux has 3 to 5
	maxNotes    = 1 << 20  // bytes of ELF notes
	maxMapSize  = 128      // entries of the memory map: E820_MAX_ENTRIES_ZEROPAGE
)

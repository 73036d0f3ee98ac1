package kvm

// Numbers and layouts from <linux/kvm.h> and <asm/kvm.h>, x86-64, each beside its C
// name. TestHeaders compares them with the host's headers.

// Version is the only stable version of the interface (KVM_API_VERSION).
const Version = 12

// ioctl requests.
const (
	reqGetAPIVersion       = 0xae00     // KVM_GET_API_VERSION
	reqCreateVM            = 0xae01     // KVM_CREATE_VM
	reqCheckExtension      = 0xae03     // KVM_CHECK_EXTENSION
	reqGetVCPUMmapSize     = 0xae04     // KVM_GET_VCPU_MMAP_SIZE
	reqGetSupportedCPUID   = 0xc008ae05 // KVM_GET_SUPPORTED_CPUID
	reqCreateVCPU          = 0xae41     // KVM_CREATE_VCPU
	reqSetUserMemoryRegion = 0x4020ae46 // KVM_SET_USER_MEMORY_REGION
	reqSetTSSAddr          = 0xae47     // KVM_SET_TSS_ADDR
	reqSetIdentityMapAddr  = 0x4008ae48 // KVM_SET_IDENTITY_MAP_ADDR
	reqCreateIRQChip       = 0xae60     // KVM_CREATE_IRQCHIP
	reqIRQLine             = 0x4008ae61 // KVM_IRQ_LINE
	reqSetGSIRouting       = 0x4008ae6a // KVM_SET_GSI_ROUTING
	reqIRQFD               = 0x4020ae76 // KVM_IRQFD
	reqCreatePIT2          = 0x4040ae77 // KVM_CREATE_PIT2
	reqIOEventFD           = 0x4040ae79 // KVM_IOEVENTFD
	reqSetClock            = 0x4030ae7b // KVM_SET_CLOCK
	reqGetClock            = 0x8030ae7c // KVM_GET_CLOCK
	reqRun                 = 0xae80     // KVM_RUN
	reqGetRegs             = 0x8090ae81 // KVM_GET_REGS
	reqSetRegs             = 0x4090ae82 // KVM_SET_REGS
	reqGetSregs            = 0x8138ae83 // KVM_GET_SREGS
	reqSetSregs            = 0x4138ae84 // KVM_SET_SREGS
	reqGetMSRs             = 0xc008ae88 // KVM_GET_MSRS
	reqSetMSRs             = 0x4008ae89 // KVM_SET_MSRS
	reqGetLAPIC            = 0x8400ae8e // KVM_GET_LAPIC
	reqSetLAPIC            = 0x4400ae8f // KVM_SET_LAPIC
	reqSetCPUID2           = 0x4008ae90 // KVM_SET_CPUID2
	reqGetMPState          = 0x8004ae98 // KVM_GET_MP_STATE
	reqGetPIT2             = 0x8070ae9f // KVM_GET_PIT2
	reqSetPIT2             = 0x4070aea0 // KVM_SET_PIT2
	reqGetTSCKHz           = 0xaea3     // KVM_GET_TSC_KHZ
	reqKVMClockCtrl        = 0xaead     // KVM_KVMCLOCK_CTRL
	reqSetDeviceAttr       = 0x4018aee1 // KVM_SET_DEVICE_ATTR
	reqGetDeviceAttr       = 0x4018aee2 // KVM_GET_DEVICE_ATTR
)

// Cap is an extension of KVM_CHECK_EXTENSION.
type Cap uintptr

const (
	CapIRQChip          Cap = 0   // KVM_CAP_IRQCHIP
	CapUserMemory       Cap = 3   // KVM_CAP_USER_MEMORY
	CapSetTSSAddr       Cap = 4   // KVM_CAP_SET_TSS_ADDR
	CapExtCPUID         Cap = 7   // KVM_CAP_EXT_CPUID
	CapNRVCPUs          Cap = 9   // KVM_CAP_NR_VCPUS: recommended maximum
	CapNRMemslots       Cap = 10  // KVM_CAP_NR_MEMSLOTS
	CapMPState          Cap = 14  // KVM_CAP_MP_STATE
	CapIRQRouting       Cap = 25  // KVM_CAP_IRQ_ROUTING
	CapIRQFD            Cap = 32  // KVM_CAP_IRQFD
	CapPIT2             Cap = 33  // KVM_CAP_PIT2
	CapIOEventFD        Cap = 36  // KVM_CAP_IOEVENTFD
	CapSetIdentityMap   Cap = 37  // KVM_CAP_SET_IDENTITY_MAP_ADDR
	CapAdjustClock      Cap = 39  // KVM_CAP_ADJUST_CLOCK
	CapMaxVCPUs         Cap = 66  // KVM_CAP_MAX_VCPUS
	CapTSCDeadlineTimer Cap = 72  // KVM_CAP_TSC_DEADLINE_TIMER
	CapKVMClockCtrl     Cap = 76  // KVM_CAP_KVMCLOCK_CTRL
	CapMaxVCPUID        Cap = 128 // KVM_CAP_MAX_VCPU_ID
	CapImmediateExit    Cap = 136 // KVM_CAP_IMMEDIATE_EXIT
)

// UserMemoryRegion flags.
const (
	MemLogDirtyPages = 1 << 0 // KVM_MEM_LOG_DIRTY_PAGES
	MemReadonly      = 1 << 1 // KVM_MEM_READONLY
)

// userMemoryRegion is struct kvm_userspace_memory_region.
type userMemoryRegion struct {
	Slot, Flags   uint32
	GuestPhysAddr uint64
	MemorySize    uint64
	UserspaceAddr uint64
}

// irqLevel is struct kvm_irq_level.
type irqLevel struct{ IRQ, Level uint32 }

// irqFD is struct kvm_irqfd.
type irqFD struct {
	FD, GSI, Flags, ResampleFD uint32
	_                          [16]byte
}

const irqFDDeassign = 1 << 0 // KVM_IRQFD_FLAG_DEASSIGN

// ioEventFD is struct kvm_ioeventfd.
type ioEventFD struct {
	Datamatch, Addr uint64
	Len             uint32
	FD              int32
	Flags           uint32
	_               [36]byte
}

const (
	ioEventFDDatamatch = 1 << 0 // KVM_IOEVENTFD_FLAG_DATAMATCH
	ioEventFDPIO       = 1 << 1 // KVM_IOEVENTFD_FLAG_PIO
	ioEventFDDeassign  = 1 << 2 // KVM_IOEVENTFD_FLAG_DEASSIGN
)

// pitConfig is struct kvm_pit_config.
type pitConfig struct {
	Flags uint32
	_     [15]uint32
}

const pitSpeakerDummy = 1 // KVM_PIT_SPEAKER_DUMMY

// PITChannel is struct kvm_pit_channel_state.
type PITChannel struct {
	Count                                     uint32 // 0x10000 if the guest wrote 0
	LatchedCount                              uint16
	CountLatched, StatusLatched               uint8
	Status, ReadState, WriteState, WriteLatch uint8
	RWMode, Mode                              uint8 // Mode is the 8254's, or above 5 before any is set
	BCD, Gate                                 uint8
	CountLoadTime                             int64 // CLOCK_MONOTONIC, in ns; channel 0 has none
}

// PIT is struct kvm_pit_state2.
type PIT struct {
	Channels [3]PITChannel
	Flags    uint32
	_        [9]uint32
}

// clockData is struct kvm_clock_data.
type clockData struct {
	Clock    uint64
	Flags, _ uint32
	Realtime uint64
	HostTSC  uint64
	_        [4]uint32
}

// deviceAttribute is struct kvm_device_attr.
type deviceAttribute struct {
	Flags, Group uint32
	Attr, Addr   uint64
}

// A vCPU attribute group, and the attribute in it.
const (
	vcpuTSCCtrl   = 0 // KVM_VCPU_TSC_CTRL
	vcpuTSCOffset = 0 // KVM_VCPU_TSC_OFFSET
)

// irqRoutingEntry is struct kvm_irq_routing_entry.
type irqRoutingEntry struct {
	GSI, Type, Flags, _ uint32
	U                   [8]uint32 // irqchip: {chip, pin}; msi: {address_lo, address_hi, data, devid}
}

const (
	routingIRQChip = 1 // KVM_IRQ_ROUTING_IRQCHIP
	routingMSI     = 2 // KVM_IRQ_ROUTING_MSI
	// maxRoutes bounds the table (KVM_MAX_IRQ_ROUTES).
	maxRoutes = 4096
)

// Regs is struct kvm_regs.
type Regs struct {
	RAX, RBX, RCX, RDX uint64
	RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11   uint64
	R12, R13, R14, R15 uint64
	RIP, RFlags        uint64
}

// Segment is struct kvm_segment.
type Segment struct {
	Base                            uint64
	Limit                           uint32
	Selector                        uint16
	Type, Present, DPL, DB, S, L, G uint8
	AVL, Unusable, _                uint8
}

// DTable is struct kvm_dtable.
type DTable struct {
	Base  uint64
	Limit uint16
	_     [3]uint16
}

// Sregs is struct kvm_sregs.
type Sregs struct {
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                DTable
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER                    uint64
	APICBase                uint64
	InterruptBitmap         [4]uint64
}

// MSR is struct kvm_msr_entry.
type MSR struct {
	Index, _ uint32
	Data     uint64
}

// CPUIDEntry is struct kvm_cpuid_entry2.
type CPUIDEntry struct {
	Function, Index, Flags uint32
	EAX, EBX, ECX, EDX     uint32
	_                      [3]uint32
}

// CPUIDSignificantIndex says that Index is significant
// (KVM_CPUID_FLAG_SIGNIFCANT_INDEX).
const CPUIDSignificantIndex = 1 << 0

// maxCPUIDEntries bounds a CPUID table (KVM_MAX_CPUID_ENTRIES).
const maxCPUIDEntries = 256

// cpuid2 is struct kvm_cpuid2.
type cpuid2 struct {
	N, _    uint32
	Entries [maxCPUIDEntries]CPUIDEntry
}

// msrs is struct kvm_msrs.
type msrs struct {
	N, _    uint32
	Entries [64]MSR
}

// irqRouting is struct kvm_irq_routing.
type irqRouting struct {
	N, Flags uint32
	Entries  [maxRoutes]irqRoutingEntry
}

// LAPIC is struct kvm_lapic_state: the registers of the local APIC, laid out as in its
// page.
type LAPIC [1024]byte

// MPState is the multiprocessing state of a vCPU, struct kvm_mp_state.
type MPState uint32

const (
	MPRunnable      MPState = 0 // KVM_MP_STATE_RUNNABLE
	MPUninitialized MPState = 1 // KVM_MP_STATE_UNINITIALIZED
	MPInitReceived  MPState = 2 // KVM_MP_STATE_INIT_RECEIVED
	MPHalted        MPState = 3 // KVM_MP_STATE_HALTED
	MPSIPIReceived  MPState = 4 // KVM_MP_STATE_SIPI_RECEIVED
)

// Offsets into struct kvm_run.
const (
	runImmediateExit = 1  // immediate_exit
	runExitReason    = 8  // exit_reason
	runIODirection   = 32 // io.direction
	runIOSize        = 33 // io.size
	runIOPort        = 34 // io.port
	runIOCount       = 36 // io.count
	runIODataOffset  = 40 // io.data_offset
	runMMIOPhysAddr  = 32 // mmio.phys_addr
	runMMIOData      = 40 // mmio.data
	runMMIOLen       = 48 // mmio.len
	runMMIOIsWrite   = 52 // mmio.is_write
	runCode          = 32 // internal.suberror, fail_entry.hardware_entry_failure_reason, system_event.type, hw.hardware_exit_reason
	runNData         = 36 // internal.ndata, system_event.ndata
	runData          = 40 // internal.data, system_event.data
)

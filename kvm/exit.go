package kvm

import (
	"encoding/binary"
	"fmt"
)

// An Exit is why the guest stopped running.
type Exit struct {
	Reason Reason
	Addr   uint64 // for an access: a port (ExitIO) or a guest physical address (ExitMMIO)
	// Data is the data of an access. It lies inside kvm_run and is valid until the
	// next Run, which completes a read with its contents at that time. An ExitIO
	// has one or more elements of Size bytes, all for the same port (REP INS and
	// OUTS); an ExitMMIO has one element.
	Data  []byte
	Size  int
	Write bool
	// Code gives details of ExitInternalError (KVM_INTERNAL_ERROR_*),
	// ExitFailEntry (the hardware's reason), ExitSystemEvent and ExitUnknown.
	Code uint64
}

// Reason is a KVM_EXIT_ number.
type Reason uint32

const (
	ExitUnknown       Reason = 0  // KVM_EXIT_UNKNOWN
	ExitException     Reason = 1  // KVM_EXIT_EXCEPTION
	ExitIO            Reason = 2  // KVM_EXIT_IO
	ExitHypercall     Reason = 3  // KVM_EXIT_HYPERCALL
	ExitDebug         Reason = 4  // KVM_EXIT_DEBUG
	ExitHLT           Reason = 5  // KVM_EXIT_HLT
	ExitMMIO          Reason = 6  // KVM_EXIT_MMIO
	ExitIRQWindowOpen Reason = 7  // KVM_EXIT_IRQ_WINDOW_OPEN
	ExitShutdown      Reason = 8  // KVM_EXIT_SHUTDOWN: a triple fault
	ExitFailEntry     Reason = 9  // KVM_EXIT_FAIL_ENTRY
	ExitIntr          Reason = 10 // KVM_EXIT_INTR
	ExitInternalError Reason = 17 // KVM_EXIT_INTERNAL_ERROR
	ExitSystemEvent   Reason = 24 // KVM_EXIT_SYSTEM_EVENT
	ExitIOAPICEOI     Reason = 26 // KVM_EXIT_IOAPIC_EOI
)

var reasonNames = map[Reason]string{
	ExitUnknown: "unknown hardware exit", ExitException: "exception", ExitIO: "I/O", ExitHypercall: "hypercall",
	ExitDebug: "debug", ExitHLT: "HLT", ExitMMIO: "MMIO", ExitIRQWindowOpen: "interrupt window",
	ExitShutdown: "shutdown", ExitFailEntry: "failed entry", ExitIntr: "interrupted",
	ExitInternalError: "KVM internal error", ExitSystemEvent: "system event", ExitIOAPICEOI: "I/O APIC EOI",
}

// String returns the reason in words.
func (r Reason) String() string {
	if s, ok := reasonNames[r]; ok {
		return s
	}
	return fmt.Sprintf("exit reason %d", uint32(r))
}

// Suberrors of ExitInternalError.
const (
	InternalErrorEmulation = 1 // KVM_INTERNAL_ERROR_EMULATION: an instruction that KVM cannot emulate
	InternalErrorSimulEx   = 2 // KVM_INTERNAL_ERROR_SIMUL_EX
	InternalErrorDelivery  = 3 // KVM_INTERNAL_ERROR_DELIVERY_EV
)

var le = binary.LittleEndian

// decode reads the exit that the kernel left in a kvm_run page.
func decode(run []byte) Exit {
	e := Exit{Reason: Reason(le.Uint32(run[runExitReason:]))}
	switch e.Reason {
	case ExitIO:
		e.Addr = uint64(le.Uint16(run[runIOPort:]))
		e.Size = int(run[runIOSize])
		e.Write = run[runIODirection] == 1
		at, n := le.Uint64(run[runIODataOffset:]), uint64(e.Size)*uint64(le.Uint32(run[runIOCount:]))
		e.Data = run[at : at+n]
	case ExitMMIO:
		e.Addr = le.Uint64(run[runMMIOPhysAddr:])
		e.Size = int(le.Uint32(run[runMMIOLen:]))
		e.Write = run[runMMIOIsWrite] != 0
		e.Data = run[runMMIOData : runMMIOData+e.Size]
	case ExitInternalError:
		e.Code = uint64(le.Uint32(run[runCode:]))
		if n := min(le.Uint32(run[runNData:]), 16); n > 0 {
			e.Data = run[runData : runData+8*n]
		}
	case ExitSystemEvent:
		e.Code = uint64(le.Uint32(run[runCode:]))
	case ExitFailEntry, ExitUnknown:
		e.Code = le.Uint64(run[runCode:])
	}
	return e
}

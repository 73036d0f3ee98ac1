package machine

import (
	"vmm/boot"
	"vmm/kvm"
)

// Model-specific registers, SDM vol. 4.
const (
	msrMiscEnable  = 0x1a0
	msrMTRRDefType = 0x2ff

	miscEnableFastString = 1 << 0
	// mtrrEnable with type 6 (write-back) and no ranges: what firmware leaves for
	// a guest in which only non-RAM addresses are uncached.
	mtrrEnable    = 1 << 11
	mtrrWriteBack = 6
)

// bootMSRs are the MSRs that differ from the reset state, on every vCPU.
var bootMSRs = []kvm.MSR{
	{Index: msrMiscEnable, Data: miscEnableFastString},
	{Index: msrMTRRDefType, Data: mtrrEnable | mtrrWriteBack},
}

const rflagsReserved = 1 << 1

// bootRegs returns the initial registers of the first vCPU. s holds its reset state.
func bootRegs(e *boot.Entry, s kvm.Sregs) (kvm.Regs, kvm.Sregs) {
	s.CR0, s.CR3, s.CR4, s.EFER = e.CR0, e.CR3, e.CR4, e.EFER
	data := segment(e.DS)
	s.CS, s.DS, s.ES, s.SS = segment(e.CS), data, data, data
	s.FS, s.GS = data, data
	s.TR = segment(e.TR)
	s.LDT = kvm.Segment{Unusable: 1}
	s.GDT = kvm.DTable{Base: e.GDT, Limit: e.GDTLimit}
	s.IDT = kvm.DTable{}
	return kvm.Regs{RIP: e.IP, RBX: e.BX, RSI: e.SI, RFlags: rflagsReserved}, s
}

func segment(s boot.Segment) kvm.Segment {
	bit := func(b bool) uint8 {
		if b {
			return 1
		}
		return 0
	}
	return kvm.Segment{
		Base: s.Base, Limit: s.Limit, Selector: s.Selector, Type: s.Type,
		Present: 1, S: bit(s.S), L: bit(s.L), DB: bit(s.DB), G: bit(s.G),
	}
}

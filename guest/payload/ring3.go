package payload

import (
	"vmm/kvm"
	"vmm/mem"
)

// Layout of a ring-3 payload. Memory below Origin is its own, and from Data on it is free.
const (
	pml4   mem.Addr = 0x1000
	pdpt   mem.Addr = 0x2000
	pds    mem.Addr = 0x3000 // four pages, one per GiB
	Origin mem.Addr = 0x8000
	stack           = 0x1_0000
	tss    mem.Addr = 0x1_0000
	Data   mem.Addr = 0x1_4000
)

// A task-state segment grants access to the ports: its bitmap, all zero, begins after the
// segment's fixed part and ends with a byte of ones. IOPL 3 also grants it. Both are set:
// not every KVM without hardware support keeps IOPL 3, and QEMU's emulated processor does
// not accept this segment.
const (
	tssFixed  = 0x68
	tssBitmap = 0x66 // where the bitmap's offset is
	tssSize   = tssFixed + 1<<16/8 + 1
)

// Ring3 puts code at Origin and page tables below it, which identity-map the first 4 GiB
// for user mode. It returns the registers to start the code with. base holds the registers
// of a new vCPU.
func Ring3(m *mem.Memory, code []byte, base kvm.Sregs) (kvm.Regs, kvm.Sregs, error) {
	if err := m.Write(Origin, code); err != nil {
		return kvm.Regs{}, base, err
	}
	tables, err := m.Slice(0, uint64(Origin))
	if err != nil {
		return kvm.Regs{}, base, err
	}
	const present, writable, user, large = 1, 2, 4, 0x80
	const flags = present | writable | user
	le.PutUint64(tables[pml4:], uint64(pdpt)|flags)
	for gib := range uint64(4) {
		pd := uint64(pds) + gib*mem.PageSize
		le.PutUint64(tables[uint64(pdpt)+8*gib:], pd|flags)
		for i := range uint64(512) {
			le.PutUint64(tables[pd+8*i:], (gib*512+i)<<21|flags|large)
		}
	}
	segment, err := m.Slice(tss, tssSize)
	if err != nil {
		return kvm.Regs{}, base, err
	}
	le.PutUint16(segment[tssBitmap:], tssFixed)
	segment[tssSize-1] = 0xff
	s := base
	s.CR0 = 0x8005_0033 // PG, AM, WP, NE, ET, MP, PE
	s.CR3 = uint64(pml4)
	s.CR4 = 0x20   // PAE
	s.EFER = 0x500 // LMA, LME
	code64 := kvm.Segment{Limit: 0xffff_ffff, Selector: 0x33, Type: 11, Present: 1, DPL: 3, S: 1, L: 1, G: 1}
	data := kvm.Segment{Limit: 0xffff_ffff, Selector: 0x2b, Type: 3, Present: 1, DPL: 3, S: 1, DB: 1, G: 1}
	s.CS, s.SS, s.DS, s.ES, s.FS, s.GS = code64, data, data, data, data, data
	s.TR = kvm.Segment{Base: uint64(tss), Limit: tssSize - 1, Selector: 0x40, Type: 11, Present: 1}
	const reserved, iopl3 = 2, 3 << 12
	return kvm.Regs{RIP: uint64(Origin), RSP: stack, RFlags: reserved | iopl3}, s, nil
}

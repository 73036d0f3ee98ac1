package boot

import (
	"encoding/binary"

	"vmm/mem"
)

// A Segment is a segment register with its hidden part, in KVM's form; the GDT in
// guest memory matches it. Field names are those of kvm_segment.
type Segment struct {
	Selector uint16
	Base     uint64
	Limit    uint32 // in bytes, regardless of G
	Type     uint8
	S        bool // code or data, not a system segment
	L        bool // 64-bit code
	DB       bool // 32-bit
	G        bool // the descriptor's limit is in pages
}

// Selectors of the boot protocol, and of a TSS, which is never used for a task switch
// but which VT-x requires.
const (
	bootCS  = 0x10
	bootDS  = 0x18
	bootTSS = 0x20
)

const tssSize = 0x68

// Register bits (SDM vol. 3, 2.5 and 2.2.1).
const (
	cr0PE   = 1 << 0
	cr0ET   = 1 << 4
	cr0PG   = 1 << 31
	cr4PAE  = 1 << 5
	eferLME = 1 << 8
	eferLMA = 1 << 10
)

// Bits of a page table entry.
const (
	ptePresent = 1 << 0
	pteWrite   = 1 << 1
	pteLarge   = 1 << 7
)

func flat(selector uint16, typ uint8, long bool) Segment {
	return Segment{Selector: selector, Limit: 0xffffffff, Type: typ, S: true, L: long, DB: !long, G: true}
}

// descriptor encodes s for the GDT (SDM vol. 3, 3.4.5), with P set and DPL 0.
func (s Segment) descriptor() uint64 {
	limit := uint64(s.Limit)
	if s.G {
		limit >>= 12
	}
	d := limit&0xffff | s.Base&0xffffff<<16 | uint64(s.Type)<<40 | 1<<47 |
		limit>>16&0xf<<48 | s.Base>>24&0xff<<56
	for _, flag := range []struct {
		on  bool
		bit uint
	}{{s.S, 44}, {s.L, 53}, {s.DB, 54}, {s.G, 55}} {
		if flag.on {
			d |= 1 << flag.bit
		}
	}
	return d
}

// protected sets e up for 32-bit protected mode without paging.
func (e *Entry) protected() {
	e.CR0 = cr0PE | cr0ET
	e.segments(false)
}

// long sets e up for 64-bit mode with the page tables of writePageTables.
func (e *Entry) long() {
	e.CR0 = cr0PE | cr0ET | cr0PG
	e.CR3 = uint64(pageTableBase)
	e.CR4 = cr4PAE
	e.EFER = eferLME | eferLMA
	e.segments(true)
}

func (e *Entry) segments(long bool) {
	const (
		code    = 0xb // execute, read, accessed
		data    = 0x3 // read, write, accessed
		busyTSS = 0xb
	)
	e.CS = flat(bootCS, code, long)
	e.DS = flat(bootDS, data, false)
	e.TR = Segment{Selector: bootTSS, Base: uint64(tssBase), Limit: tssSize - 1, Type: busyTSS}
	e.GDT = uint64(gdtBase)
	e.GDTLimit = bootTSS + 16 - 1 // in 64-bit mode a TSS takes two slots
}

func (e *Entry) writeGDT(m *mem.Memory) error {
	gdt := make([]byte, e.GDTLimit+1)
	for _, s := range []Segment{e.CS, e.DS, e.TR} {
		binary.LittleEndian.PutUint64(gdt[s.Selector:], s.descriptor())
	}
	return m.Write(gdtBase, gdt)
}

// writePageTables identity-maps the first 4 GiB in 2 MiB pages: a vCPU may not support
// larger ones.
func writePageTables(m *mem.Memory) error {
	const (
		tables  = 4
		entries = 512
		page    = 2 << 20
	)
	b, err := m.Slice(pageTableBase, (2+tables)*mem.PageSize)
	if err != nil {
		return err
	}
	put := func(i int, v uint64) { binary.LittleEndian.PutUint64(b[i*8:], v|ptePresent|pteWrite) }
	put(0, uint64(pageTableBase)+mem.PageSize)
	for t := range tables {
		put(entries+t, uint64(pageTableBase)+uint64(2+t)*mem.PageSize)
	}
	for i := range tables * entries {
		put(2*entries+i, uint64(i)*page|pteLarge)
	}
	return nil
}

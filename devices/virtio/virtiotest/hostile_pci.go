package virtiotest

import (
	"bytes"
	"fmt"
)

// barCases move the BARs on top of something else while the device works.
func barCases(s *suite) (list []hostile) {
	if s.kind == MMIO {
		return nil
	}
	p := s.d.pci()
	for i, size := range p.sizes {
		if size != 0 {
			list = append(list, s.barMoves(i, size)...)
		}
	}
	list = append(list, s.live("the BARs are sized", func(*Queue) {
		for range 3 {
			p.size()
			s.bystander()
		}
		for i, size := range p.sizes {
			if size != 0 {
				p.placeBAR(i, p.home(i))
			}
		}
	}))
	list = append(list, s.live("memory decoding is off", func(q *Queue) {
		command := p.cfg(cfgCommand, 2)
		p.setCfg(cfgCommand, 2, command&^commandMemory)
		q.Notify()
		if s.d.Get(Status) != 0xff {
			s.Error("a BAR answers while decoding is off")
		}
		s.d.Set(Status, 0)
		s.bystander()
		p.setCfg(cfgCommand, 2, command)
	}))
	list = append(list, s.live("port decoding is toggled", s.togglePorts))
	list = append(list, s.live("all of configuration space is written", func(*Queue) {
		for reg := range 256 {
			p.setCfg(reg, 1, 0xff)
			p.setCfg(reg, 1, 0)
		}
		s.bystander()
		p.find()
		s.d.Start(s.setup()) // the access capability may have done anything
	}))
	return list
}

// togglePorts turns I/O decoding off and on while both ways to notify are used.
func (s *suite) togglePorts(q *Queue) {
	p := s.d.pci()
	command := p.cfg(cfgCommand, 2)
	bell := p.bells[0]
	number := le.AppendUint16(nil, uint16(q.index))
	for range 50 {
		for _, io := range []uint32{0, commandIO} {
			p.setCfg(cfgCommand, 2, command&^commandIO|io)
			p.space(bell.bar).Write(bell.addr, number)
			q.Notify()
		}
	}
	n := q.Done + 1
	p.setCfg(cfgCommand, 2, command&^commandIO)
	if len(s.driven()) > 0 {
		q.Submit(s.request(q.index))
	}
	p.space(bell.bar).Write(bell.addr, number) // is lost
	p.setCfg(cfgCommand, 2, command)
	q.Notify()
	if len(s.driven()) > 0 {
		q.Poll(n)
	}
}

// barPlaces returns addresses to move a BAR to.
func (s *suite) barPlaces(i int, size uint64) map[string]uint64 {
	p, other := s.d.pci(), s.other.pci()
	if p.ports[i] {
		return map[string]uint64{
			"0": 0, "CONFIG_ADDRESS": portBase, "CONFIG_DATA": portBase + 4, "the bystander's ports": other.bars[i],
			"just below the window": winPorts - size, "the end of the window": endPorts - size, "behind the window": endPorts,
			"the window of memory": winBase, "the top": 1<<32 - size,
		}
	}
	return map[string]uint64{
		"0": 0, "RAM": uint64(lowBase), "the end of RAM": uint64(lowBase+lowSize) &^ (size - 1), "RAM above 4 GiB": uint64(highBase),
		"ECAM": ecamBase, "the MMIO devices": mmioBase, "the bystander's registers": other.bars[0], "the bystander's table": other.bars[other.tableBAR],
		"its other BAR": p.bars[p.tableBAR-i], "just below the window": winBase - size, "the end of the window": winEnd - size, "behind the window": winEnd,
		"the interrupt controller": 0xfee00000, "the top": -size, "2^63": 1 << 63,
	}
}

// barMoves returns the cases that move one BAR.
func (s *suite) barMoves(i int, size uint64) (list []hostile) {
	p := s.d.pci()
	for name, addr := range sorted(s.barPlaces(i, size)) {
		list = append(list, s.live(fmt.Sprintf("BAR %d at %s", i, name), func(q *Queue) {
			g := s.guard(q.given())
			p.placeBAR(i, addr)
			q.Notify()
			for off := uint64(0); off < size; off += 64 { // what is there is not ours
				p.space(i).Read(addr+off, make([]byte, 4))
			}
			if p.ports[i] {
				p.space(i).Write(addr, le.AppendUint16(nil, uint16(q.index)))
			}
			if err := g.check(); err != nil {
				s.Error(err)
			}
			s.bystander()
			p.placeBAR(i, p.home(i))
			s.bystander()
		}))
	}
	return list
}

// Offsets in the capability.
const capBAR, capOffset, capLength, capData = 4, 8, 12, 16

// aim sets what the window accesses.
func (a *pciAccess) aim(bar, offset, length uint32) {
	a.setCfg(a.accessCap+capBAR, 1, bar)
	a.setCfg(a.accessCap+capOffset, 4, offset)
	a.setCfg(a.accessCap+capLength, 4, length)
}

// useAccess drives a device through the window alone, after the initial setup.
func (s *suite) useAccess(q *Queue) {
	p, status := s.d.pci(), uint32(commonPlaces[Status].off)
	p.aim(0, status, 1)
	if got := p.cfg(p.accessCap+capData, 1); got != 15 {
		s.Errorf("status %#x", got)
	}
	p.aim(0, uint32(commonPlaces[QueueSelect].off), 2)
	p.setCfg(p.accessCap+capData, 2, 0xfff)
	if got := s.d.Get(QueueSelect); got != 0xfff {
		s.Errorf("queue_select %#x", got)
	}
	p.aim(0, status, 1)
	p.setCfg(p.accessCap+capData, 1, 0)
	s.d.until("the end of the reset", func() bool { return p.cfg(p.accessCap+capData, 1)&0xff == 0 })
	s.isReset()
	s.d.Start(s.setup())
	q = s.d.Queues[q.index]
	for _, bell := range p.bells {
		n := q.Done + 1
		q.Submit(s.request(q.index))
		p.aim(uint32(bell.bar), uint32(bell.offset+bell.multiplier*uint64(q.index)), 2)
		p.setCfg(p.accessCap+capData, 2, uint32(q.index))
		if len(s.driven()) > 0 {
			q.Poll(n)
		}
		if got := p.cfg(p.accessCap+capData, 2); p.ports[bell.bar] && got != 0xffff {
			s.Errorf("a port reads as %#x", got)
		}
	}
}

// accessCases abuse the window to the BARs in configuration space, §4.1.4.9.
func accessCases(s *suite) (list []hostile) {
	if s.kind == MMIO {
		return nil
	}
	p := s.d.pci()
	status := uint32(commonPlaces[Status].off)
	list = append(list, s.live("as it is meant", s.useAccess))
	abuse := func(bar, offset, length uint32) {
		list = append(list, s.live(fmt.Sprintf("bar %d, offset %#x, length %#x", bar, offset, length), func(*Queue) {
			p.aim(bar, offset, length)
			for _, width := range []int{1, 2, 4} {
				for off := 0; off < 4; off += width {
					p.cfg(p.accessCap+capData+off, width)
					p.setCfg(p.accessCap+capData+off, width, 0)
					p.setCfg(p.accessCap+capData+off, width, 0xffffffff)
				}
			}
			p.aim(0, 0, 0)
		}))
	}
	for _, bar := range []uint32{1, 2, 3, 4, 5, 6, 7, 0x80, 0xff} {
		abuse(bar, status, 1)
		abuse(bar, 0, 4)
	}
	for _, at := range [][2]uint32{{0, 2}, {0, 1}, {2, 2}, {3, 1}, {4, 4}, {4, 2}, {0xfffffffe, 2}} {
		abuse(uint32(p.bells[0].bar), at[0], at[1])
	}
	for _, length := range []uint32{0, 3, 5, 8, 16, 0x100, 0x101, 1 << 31, 0xffffffff} {
		abuse(0, status, length)
		abuse(0, 0xffffffff, length)
	}
	for _, offset := range []uint32{uint32(p.sizes[0]), uint32(p.sizes[0]) - 1, uint32(p.sizes[0]) - 2, 1, 3, 0x15, 0x7fffffff, 1 << 31, 0xfffffffc, 0xffffffff} {
		abuse(0, offset, 4)
	}
	list = append(list, s.live("what is read-only is written", func(*Queue) {
		was := make([]uint32, 4)
		for i := range was {
			was[i] = p.cfg(p.accessCap+i, 1)
			p.setCfg(p.accessCap+i, 1, ^was[i])
			if got := p.cfg(p.accessCap+i, 1); got != was[i] {
				s.Errorf("byte %d is %#x, was %#x", i, got, was[i])
			}
		}
	}))
	return list
}

func msixCases(s *suite) (list []hostile) {
	if s.kind != MSIX {
		return nil
	}
	p := s.d.pci()
	n := uint32(len(s.d.Slot.Vectors))
	for _, v := range []uint32{n, n + 1, 0x7ff, 0x800, 0x8000, 0xfffe, 0xffff} {
		list = append(list, s.live(fmt.Sprintf("vector %#x", v), func(q *Queue) {
			s.d.Set(QueueSelect, uint32(q.index))
			for _, r := range []Register{ConfigVector, QueueVector} {
				was := s.d.Get(r)
				if s.d.Set(r, v); s.d.Get(r) != noVector {
					s.Errorf("register %d is %#x, want none", r, s.d.Get(r))
				}
				if len(s.driven()) > 0 {
					s.one(q)
				}
				s.d.Set(r, was)
			}
		}))
	}
	garbage := func(name string, do func(e uint64)) {
		list = append(list, s.live(name, func(q *Queue) {
			do(p.table + 16*uint64(q.index))
			if len(s.driven()) > 0 {
				s.one(q)
			}
			s.bystander()
			p.setMSIX(true)
		}))
	}
	for _, addr := range []uint32{0, 0xffffffff, 0xfee00001, 0xfed00000, uint32(lowBase)} {
		garbage(fmt.Sprintf("address %#x", addr), func(e uint64) { s.board.write(e, 4, addr) })
		garbage(fmt.Sprintf("address %#x, masked meanwhile", addr), func(e uint64) {
			s.board.write(e+12, 4, 1)
			s.board.write(e, 4, addr)
			s.board.write(e+4, 4, addr)
			s.board.write(e+12, 4, 0)
		})
	}
	garbage("data", func(e uint64) { s.board.write(e+8, 4, 0xffffffff) })
	garbage("control", func(e uint64) { s.board.write(e+12, 4, 0xfffffffe) })
	garbage("all ones", func(e uint64) { s.board.Memory.Write(e, bytes.Repeat([]byte{0xff}, 8)) })
	for width := range 9 {
		garbage(fmt.Sprintf("accesses of width %d", width), func(uint64) { p.scribble(width, 16*uint64(n)) })
	}
	for _, control := range []uint32{0, msixMask, msixEnable | msixMask, 0xffff, 0x7fff} {
		garbage(fmt.Sprintf("message control %#x", control), func(uint64) {
			p.setCfg(p.msixCap+2, 2, control)
			s.d.Get(ISR)
		})
	}
	return list
}

// scribble accesses the MSI-X BAR everywhere, except for writes of this width that
// would have an effect.
func (a *pciAccess) scribble(width int, table uint64) {
	for off := uint64(0); off < a.sizes[a.tableBAR]; off += 13 {
		a.b.Memory.Read(a.bars[a.tableBAR]+off, make([]byte, width))
		if off >= table || width < 4 {
			a.b.Memory.Write(a.bars[a.tableBAR]+off, bytes.Repeat([]byte{0xee}, width))
		}
	}
}

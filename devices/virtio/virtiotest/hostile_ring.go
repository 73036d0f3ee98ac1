package virtiotest

import (
	"fmt"

	"vmm/devices/virtio"
	"vmm/mem"
)

const indirectFeature = virtio.FeatureIndirectDesc

func indirectCases(s *suite) (list []hostile) {
	add := func(name string, features uint64, w want, descs func(q *Queue, c []desc) []desc) {
		list = append(list, hostile{name, features, w, func(q *Queue) ([]span, func()) {
			chain, free := s.good(q)
			return free, submit(q, descs(q, chain))
		}})
	}
	table := func(q *Queue, c []desc, edit func(d *desc)) []desc {
		d := s.tableOf(q, c)
		edit(&d)
		return []desc{d}
	}
	add("not negotiated", 0, breaks, func(q *Queue, c []desc) []desc { return table(q, c, func(*desc) {}) })
	for _, n := range []uint32{0, 1, 15, 17, 24, 0xfffffff0, 0xffffffff, lowSize + 16} {
		add(fmt.Sprintf("table of %d bytes", n), indirectFeature, breaks, func(q *Queue, c []desc) []desc {
			return table(q, c, func(d *desc) { d.n = n })
		})
	}
	for name, bad := range sorted(s.badAddresses()) {
		add("table at "+name, indirectFeature, breaks, func(q *Queue, c []desc) []desc {
			return table(q, c, func(d *desc) { d.addr, d.n = bad.addr, (bad.n+15)&^15 })
		})
	}
	add("table with NEXT", indirectFeature, breaks, func(q *Queue, c []desc) []desc {
		return append(table(q, c, func(d *desc) { d.flags |= flagNext; d.next = 1 }), c[len(c)-1])
	})
	add("table that is writable", indirectFeature, answers, func(q *Queue, c []desc) []desc {
		return table(q, c, func(d *desc) { d.flags |= flagWrite }) // §2.7.5.3.2: ignored
	})
	add("table at an odd address", indirectFeature, ends, func(q *Queue, c []desc) []desc {
		d := s.tableOf(q, append(c, desc{})) // one byte further on, everything is garbage
		return []desc{{addr: d.addr + 1, n: d.n - 16, flags: flagIndirect}}
	})
	// The device's queue is larger than the ring (§2.7.5.3.1).
	for more, w := range []want{answers, breaks} {
		add(fmt.Sprintf("table of as many as the device's queue and %d", more), indirectFeature, w, func(q *Queue, c []desc) []desc {
			for len(c) < int(s.d.Sizes[q.index])+more {
				c = append(c, desc{addr: c[len(c)-1].addr, n: 1, flags: flagWrite})
			}
			return table(q, c, func(*desc) {})
		})
	}
	add("table that is the ring", indirectFeature, ends, func(q *Queue, c []desc) []desc {
		return table(q, c, func(d *desc) { d.addr, d.n = q.Layout.Desc, 16*uint32(q.Layout.Size) })
	})
	list = append(list, s.nestedTables()...)
	list = append(list, s.splitTables()...)
	return list
}

// nestedTables returns cases with tables in tables.
func (s *suite) nestedTables() (list []hostile) {
	inner := ends // packed: flags in tables mean nothing, except WRITE, §2.8.7
	if !s.packed {
		inner = breaks
	}
	add := func(name string, features uint64, w want, table func(q *Queue, c []desc) desc) {
		list = append(list, hostile{name, features, w, func(q *Queue) ([]span, func()) {
			chain, free := s.good(q)
			return free, submit(q, []desc{table(q, chain)})
		}})
	}
	add("table in a table", indirectFeature, inner, func(q *Queue, c []desc) desc {
		d := s.tableOf(q, c)
		outer := s.tableOf(q, []desc{d})
		s.putFlags(q, outer.addr, flagIndirect)
		return outer
	})
	add("table in itself", indirectFeature, inner, func(q *Queue, c []desc) desc {
		outer := s.tableOf(q, c)
		putDesc(s.board.bytes(outer.addr, 16), desc{addr: outer.addr, n: outer.n})
		s.putFlags(q, outer.addr, flagIndirect)
		return outer
	})
	return list
}

// putFlags sets the flags of the first descriptor of a table.
func (s *suite) putFlags(q *Queue, table mem.Addr, flags uint16) {
	at := mem.Addr(12)
	if q.Format.Packed {
		at = 14
	}
	le.PutUint16(s.board.bytes(table+at, 2), flags)
}

// splitTables returns cases of tables whose descriptors use next.
func (s *suite) splitTables() (list []hostile) {
	if s.packed {
		return []hostile{{"a table at the end of a list", indirectFeature, breaks, func(q *Queue) ([]span, func()) {
			chain, free := s.good(q)
			d := s.tableOf(q, chain[len(chain)-1:])
			return free, submit(q, []desc{{addr: chain[0].addr, n: 1, flags: flagNext}, d})
		}}}
	}
	add := func(name string, w want, next ...uint16) {
		list = append(list, hostile{"table: " + name, indirectFeature, w, func(q *Queue) ([]span, func()) {
			chain, free := s.good(q)
			chain = append(chain, desc{addr: chain[len(chain)-1].addr, n: 1, flags: flagWrite}, desc{addr: chain[len(chain)-1].addr, n: 1, flags: flagWrite})
			for i := range chain[:len(next)] {
				chain[i].flags = flagWrite
			}
			d := s.tableOf(q, chain)
			for i, n := range next {
				b := s.board.bytes(d.addr+mem.Addr(16*i), 16)
				le.PutUint16(b[12:], flagNext|flagWrite)
				le.PutUint16(b[14:], n)
			}
			return free, submit(q, []desc{d})
		}})
	}
	add("next is itself", breaks, 0)
	add("next is before", breaks, 1, 0)
	add("next out of range", breaks, 100)
	add("next is 65535", breaks, 0xffff)
	add("a loop of three", breaks, 1, 2, 0)
	list = append(list, hostile{"a chain that ends in a table", indirectFeature, ends, func(q *Queue) ([]span, func()) {
		chain, free := s.good(q)
		d := s.tableOf(q, chain)
		return free, submit(q, []desc{{addr: chain[0].addr, n: 0, flags: flagNext, next: 1}, d})
	}})
	return list
}

func splitCases(s *suite) (list []hostile) {
	if s.packed {
		return nil
	}
	size := uint16(min(16, s.d.Sizes[0]))
	add := func(name string, w want, descs func(c []desc) []desc, heads ...uint16) {
		list = append(list, hostile{name, 0, w, func(q *Queue) ([]span, func()) {
			chain, free := s.good(q)
			return free, submit(q, descs(linked(chain)), heads...)
		}})
	}
	same := func(c []desc) []desc { return c }
	next := func(last uint16) func(c []desc) []desc {
		return func(c []desc) []desc {
			c[len(c)-1].flags |= flagNext
			c[len(c)-1].next = last
			return c
		}
	}
	add("head out of range", breaks, same, size)
	add("head 65535", breaks, same, 0xffff)
	add("head 32768", breaks, same, 0x8000)
	add("a good chain, then a head out of range", breaks, same, 0, size+1)
	add("next is itself", breaks, func(c []desc) []desc { return []desc{{addr: c[0].addr, n: 1, flags: flagNext}} })
	add("next is itself, writable", breaks, func(c []desc) []desc {
		return []desc{{addr: c[len(c)-1].addr, n: 1, flags: flagNext | flagWrite}}
	})
	add("an empty loop", breaks, func([]desc) []desc { return []desc{{flags: flagNext}} })
	add("a loop of two", breaks, func(c []desc) []desc {
		return []desc{{addr: c[0].addr, n: 1, flags: flagNext, next: 1}, {addr: c[0].addr, n: 1, flags: flagNext}}
	})
	add("a loop to the first", breaks, next(0))
	add("a loop through the whole ring", breaks, func([]desc) (all []desc) {
		for i := range size {
			all = append(all, desc{addr: lowBase, n: 0, flags: flagNext, next: (i + 1) % size})
		}
		return all
	})
	add("next out of range", breaks, next(size))
	add("next 65535", breaks, next(0xffff))
	add("unknown flags", answers, func(c []desc) []desc {
		for i := range c {
			c[i].flags |= 0xfff8
		}
		return c
	})
	if !raced {
		add("a head twice", ends, same, 0, 0)
		add("a head as often as the ring allows", ends, same, make([]uint16, size)...)
		add("a chain within a chain", ends, same, 0, uint16(1)%size)
	}
	list = append(list, s.indexCases(size)...)
	return list
}

// indexCases returns cases where the available index jumps.
func (s *suite) indexCases(size uint16) (list []hostile) {
	for name, idx := range sorted(map[string]uint16{"by one more than the ring": size + 1, "by 32768": 0x8000, "back by one": 0xffff, "back by the ring": -size, "back by 32767": 0x8001}) {
		list = append(list, hostile{"idx jumps " + name, 0, breaks, func(q *Queue) ([]span, func()) {
			r := q.ring.(*split)
			r.idx.Store(idx)
			return nil, q.Notify
		}})
	}
	list = append(list, hostile{"idx jumps over chains that are not there", 0, ends, func(q *Queue) ([]span, func()) {
		r := q.ring.(*split)
		r.idx.Store(size) // zeros: empty chains
		return nil, q.Notify
	}})
	list = append(list, hostile{"idx goes back after a chain", 0, breaks, func(q *Queue) ([]span, func()) {
		r := q.ring.(*split)
		chain, free := s.good(q)
		act := submit(q, linked(chain))
		return append(free, span{q.Layout.Driver, 4}), func() {
			act()
			s.d.until("an answer", r.peek)
			r.idx.Store(0)
			q.Notify()
		}
	}})
	for flags := range uint16(4) {
		list = append(list, hostile{"flags of the available ring", 0, answers, func(q *Queue) ([]span, func()) {
			r := q.ring.(*split)
			chain, free := s.good(q)
			r.flags.Store(0xfff0 | flags)
			return free, submit(q, linked(chain))
		}})
	}
	for _, event := range []uint16{0, 1, 0x7fff, 0x8000, 0xffff} {
		list = append(list, hostile{"used_event", virtio.FeatureEventIdx, answers, func(q *Queue) ([]span, func()) {
			r := q.ring.(*split)
			chain, free := s.good(q)
			r.usedEvent.Store(event)
			return free, submit(q, linked(chain))
		}})
	}
	return list
}

func packedCases(s *suite) (list []hostile) {
	if !s.packed {
		return nil
	}
	size := int(min(16, s.d.Sizes[0]))
	add := func(name string, w want, descs func(c []desc) []desc, id ...uint16) {
		list = append(list, hostile{name, 0, w, func(q *Queue) ([]span, func()) {
			chain, free := s.good(q)
			return free, submit(q, descs(linked(chain)), id...)
		}})
	}
	same := func(c []desc) []desc { return c }
	add("ID out of range", answers, same, uint16(size)) // §2.8.6: the ID is the driver's own
	add("ID 65535", answers, same, 0xffff)
	add("a list without its end", breaks, func(c []desc) []desc {
		c[len(c)-1].flags |= flagNext
		return c
	})
	add("one descriptor that has a next", breaks, func(c []desc) []desc { return []desc{{addr: c[0].addr, n: 1, flags: flagNext}} })
	loop := func(n int, flags uint16) func(c []desc) []desc {
		return func(c []desc) (all []desc) {
			for range n {
				all = append(all, desc{addr: c[0].addr, n: 1, flags: flagNext | flags})
			}
			return all
		}
	}
	add("the whole ring is one list without an end", breaks, loop(size, 0))
	add("the same, writable", breaks, loop(size, flagWrite))
	add("a list longer than the ring", breaks, loop(size+1, 0))
	add("twice the ring", breaks, loop(2*size, 0))
	add("unknown flags", answers, func(c []desc) []desc {
		for i := range c {
			c[i].flags |= 0x7f78 // all except AVAIL, USED, and those that have a meaning
		}
		return c
	})
	add("USED too", harmless, func(c []desc) []desc {
		for i := range c {
			c[i].flags |= flagUsed
		}
		return c
	})
	add("the second is USED", breaks, func(c []desc) []desc {
		c = append(c[:1], desc{addr: c[0].addr, n: 1, flags: flagUsed | c[0].flags&flagWrite})
		c[0].flags |= flagNext
		return c
	})
	add("of the next lap", harmless, func(c []desc) []desc {
		for i := range c {
			c[i].flags ^= flagUsed | flagAvail // AVAIL is set, so this clears it
		}
		return c
	})
	return append(list, s.eventCases(size)...)
}

// eventCases returns event suppression structures that mean nothing, or that no
// driver would write.
func (s *suite) eventCases(size int) (list []hostile) {
	for _, event := range []uint32{1 << 16, 3 << 16, 0xffff, 2<<16 | 0xffff, 2<<16 | 0x7fff, 2<<16 | 0x8000, 0xffffffff, 2<<16 | uint32(size)} {
		for _, features := range []uint64{0, virtio.FeatureEventIdx} {
			list = append(list, hostile{"driver event", features, answers, func(q *Queue) ([]span, func()) {
				r := q.ring.(*packed)
				chain, free := s.good(q)
				r.setEvent(event)
				return free, submit(q, linked(chain))
			}})
		}
	}
	return list
}

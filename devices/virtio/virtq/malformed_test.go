package virtq_test

import (
	"slices"
	"strings"
	"testing"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

// A guest writes rings by hand.
type guest struct{ *rig }

// desc writes a descriptor of a ring; in a packed one the last two fields are
// id and flags.
func (g guest) desc(i int, addr mem.Addr, n uint32, flags, next uint16) {
	g.descAt(descAt+mem.Addr(16*i), addr, n, flags, next)
}

func (g guest) descAt(at, addr mem.Addr, n uint32, a, b uint16) {
	d := g.at(at, 16)
	le.PutUint64(d, uint64(addr))
	le.PutUint32(d[8:], n)
	le.PutUint16(d[12:], a)
	le.PutUint16(d[14:], b)
}

// pdesc writes a descriptor of a packed ring, available in the first lap.
func (g guest) pdesc(i int, addr mem.Addr, n uint32, id, flags uint16) {
	g.descAt(descAt+mem.Addr(16*i), addr, n, id, flags|avail)
}

// avail makes heads available in a fresh split ring.
func (g guest) avail(heads ...uint16) {
	for i, h := range heads {
		le.PutUint16(g.at(driverAt+mem.Addr(4+2*i), 2), h)
	}
	g.u16(driverAt + 2).Store(uint16(len(heads)))
}

const badAt = mem.Addr(0xfffffffffffff000)

var malformed = []struct {
	name string
	size uint16 // of the queue
	f    virtq.Format
	put  func(g guest)
	err  string // part of it; "" if odd but harmless
}{
	{"avail idx jumps", 8, virtq.Format{}, func(g guest) { g.u16(driverAt + 2).Store(9) }, "jumped from 0 to 9"},
	{"avail idx goes back", 8, virtq.Format{}, func(g guest) { g.u16(driverAt + 2).Store(0xffff) }, "jumped"},
	{"head outside", 8, virtq.Format{}, func(g guest) { g.avail(8) }, "descriptor 8 of 8"},
	{"head far outside", 8, virtq.Format{}, func(g guest) { g.avail(0xffff) }, "descriptor 65535 of 8"},
	{"next outside", 8, virtq.Format{}, func(g guest) { g.desc(0, dataAt, 1, next, 8); g.avail(0) }, "descriptor 8 of 8"},
	{"next outside without NEXT", 8, virtq.Format{}, func(g guest) { g.desc(0, dataAt, 1, 0, 0xffff); g.avail(0) }, ""},
	{"chain of itself", 8, virtq.Format{}, func(g guest) { g.desc(0, dataAt, 1, next, 0); g.avail(0) }, "loop"},
	{"loop of two", 8, virtq.Format{}, func(g guest) { g.desc(0, dataAt, 1, next, 1); g.desc(1, dataAt, 1, next, 0); g.avail(0) }, "loop"},
	{"loop of empty buffers", 8, virtq.Format{}, func(g guest) { g.desc(3, badAt, 0, next, 3); g.avail(3) }, "loop"},
	{"buffer outside", 8, virtq.Format{}, func(g guest) { g.desc(0, badAt, 1, 0, 0); g.avail(0) }, "not RAM"},
	{"buffer half outside", 8, virtq.Format{}, func(g guest) { g.desc(0, ramBase+ramSize-1, 2, write, 0); g.avail(0) }, "not RAM"},
	{"buffer before RAM", 8, virtq.Format{}, func(g guest) { g.desc(0, ramBase-1, 2, 0, 0); g.avail(0) }, "not RAM"},
	{"address wraps", 8, virtq.Format{}, func(g guest) { g.desc(0, 0xffffffffffffffff, 0xffffffff, 0, 0); g.avail(0) }, "not RAM"},
	{"buffer of 4 GiB less one", 8, virtq.Format{}, func(g guest) { g.desc(0, ramBase, 0xffffffff, 0, 0); g.avail(0) }, "not RAM"},
	{"writable before readable", 8, virtq.Format{}, func(g guest) { g.desc(0, dataAt, 1, write|next, 1); g.desc(1, dataAt, 1, 0, 0); g.avail(0) }, "readable buffer follows"},
	{"indirect, not negotiated", 8, virtq.Format{}, func(g guest) { g.desc(0, tablesAt, 16, indirect, 0); g.avail(0) }, "negotiated"},
	{"indirect and next", 8, virtq.Format{Indirect: true}, func(g guest) { g.desc(0, tablesAt, 16, indirect|next, 1); g.avail(0) }, "INDIRECT and NEXT"},
	{"empty table", 8, virtq.Format{Indirect: true}, func(g guest) { g.desc(0, tablesAt, 0, indirect, 0); g.avail(0) }, "table of 0 bytes"},
	{"table with a rest", 8, virtq.Format{Indirect: true}, func(g guest) { g.desc(0, tablesAt, 24, indirect, 0); g.avail(0) }, "table of 24 bytes"},
	{"table outside", 8, virtq.Format{Indirect: true}, func(g guest) { g.desc(0, badAt, 16, indirect, 0); g.avail(0) }, "not RAM"},
	{"huge table", 8, virtq.Format{Indirect: true}, func(g guest) { g.desc(0, tablesAt, 0xfffffff0, indirect, 0); g.avail(0) }, "not RAM"},
	{"nested tables", 8, virtq.Format{Indirect: true}, func(g guest) {
		g.desc(0, tablesAt, 16, indirect, 0)
		g.descAt(tablesAt, tablesAt+16, 16, indirect, 0)
		g.avail(0)
	}, "within another"},
	{"table of itself", 8, virtq.Format{Indirect: true}, func(g guest) { g.desc(0, descAt, 128, indirect, 0); g.avail(0) }, "within another"},
	{"next outside of table", 8, virtq.Format{Indirect: true}, func(g guest) {
		g.desc(0, tablesAt, 16, indirect, 0)
		g.descAt(tablesAt, dataAt, 1, next, 1)
		g.avail(0)
	}, "descriptor 1 of 1"},
	{"loop in table", 8, virtq.Format{Indirect: true}, func(g guest) {
		g.desc(0, tablesAt, 16, indirect, 0)
		g.descAt(tablesAt, dataAt, 1, next, 0)
		g.avail(0)
	}, "loop"},
	{"buffer outside in table", 8, virtq.Format{Indirect: true}, func(g guest) {
		g.desc(0, tablesAt, 16, indirect, 0)
		g.descAt(tablesAt, badAt, 1, 0, 0)
		g.avail(0)
	}, "not RAM"},
	{"chain of the queue's size in a table", 4, virtq.Format{Indirect: true}, func(g guest) { g.table(4); g.avail(0) }, ""},
	{"chain longer than the queue in a table", 4, virtq.Format{Indirect: true}, func(g guest) { g.table(5); g.avail(0) }, "more descriptors than allowed"},
	{"chain longer than the queue, in part in a table", 4, virtq.Format{Indirect: true}, func(g guest) {
		g.table(4)
		g.desc(1, dataAt, 1, next, 0)
		g.avail(1)
	}, "more descriptors than allowed"},
	{"table longer than the chain", 4, virtq.Format{Indirect: true}, func(g guest) {
		g.desc(0, tablesAt, 16*40, indirect, 0)
		g.descAt(tablesAt, dataAt, 1, next, 39)
		g.descAt(tablesAt+16*39, dataAt, 1, write, 0)
		g.avail(0)
	}, ""},
	{"direct, then indirect", 4, virtq.Format{Indirect: true}, func(g guest) {
		g.table(2)
		g.desc(1, dataAt, 1, next, 0)
		g.avail(1)
	}, ""},
	{"indirect that is writable", 4, virtq.Format{Indirect: true}, func(g guest) {
		g.desc(0, tablesAt, 32, indirect|write, 0)
		g.descAt(tablesAt, dataAt, 1, next, 1)
		g.descAt(tablesAt+16, dataAt, 1, write, 0)
		g.avail(0)
	}, ""},
	{"writable, then readable in table", 4, virtq.Format{Indirect: true}, func(g guest) {
		g.table(1)
		g.desc(1, dataAt, 1, next|write, 0)
		g.avail(1)
	}, "readable buffer follows"},
	{"reserved flags", 8, virtq.Format{}, func(g guest) { g.desc(0, dataAt, 1, 0xfff8, 0); g.avail(0) }, ""},
	{"empty buffer outside", 8, virtq.Format{}, func(g guest) { g.desc(0, badAt, 0, 0, 0); g.avail(0) }, ""},
	{"all buffers empty", 8, virtq.Format{}, func(g guest) {
		g.desc(0, badAt, 0, next, 1)
		g.desc(1, badAt, 0, write, 1)
		g.avail(0)
	}, ""},
	{"one head twice", 8, virtq.Format{}, func(g guest) { g.desc(0, dataAt, 1, 0, 0); g.avail(0, 0) }, ""},
	{"chains that share", 8, virtq.Format{}, func(g guest) {
		g.desc(0, dataAt, 1, next, 1)
		g.desc(1, dataAt, 1, 0, 0)
		g.avail(0, 1)
	}, ""},

	{"packed: buffer outside", 8, virtq.Format{Packed: true}, func(g guest) { g.pdesc(0, badAt, 1, 0, 0) }, "not RAM"},
	{"packed: buffer half outside", 8, virtq.Format{Packed: true}, func(g guest) { g.pdesc(0, ramBase+ramSize-1, 2, 0, write) }, "not RAM"},
	{"packed: address wraps", 8, virtq.Format{Packed: true}, func(g guest) { g.pdesc(0, 0xffffffffffffffff, 0xffffffff, 0, 0) }, "not RAM"},
	{"packed: writable before readable", 8, virtq.Format{Packed: true}, func(g guest) {
		g.pdesc(0, dataAt, 1, 0, write|next)
		g.pdesc(1, dataAt, 1, 0, 0)
	}, "readable buffer follows"},
	{"packed: half a list", 8, virtq.Format{Packed: true}, func(g guest) { g.pdesc(0, dataAt, 1, 0, next) }, "in part"},
	{"packed: rest of the list is used", 8, virtq.Format{Packed: true}, func(g guest) {
		g.pdesc(0, dataAt, 1, 0, next)
		g.pdesc(1, dataAt, 1, 0, used)
	}, "in part"},
	{"packed: list without an end", 4, virtq.Format{Packed: true}, func(g guest) {
		for i := range 4 {
			g.pdesc(i, dataAt, 1, 0, next)
		}
	}, "in part"}, // descriptors read in one lap are not available in the next
	{"packed: list without an end in a ring of one", 1, virtq.Format{Packed: true}, func(g guest) { g.pdesc(0, dataAt, 1, 0, next) }, "in part"},
	{"packed: indirect, not negotiated", 8, virtq.Format{Packed: true}, func(g guest) { g.pdesc(0, tablesAt, 16, 0, indirect) }, "negotiated"},
	{"packed: indirect and next", 8, virtq.Format{Packed: true, Indirect: true}, func(g guest) { g.pdesc(0, tablesAt, 16, 0, indirect|next) }, "INDIRECT and NEXT"},
	{"packed: direct, then indirect", 8, virtq.Format{Packed: true, Indirect: true}, func(g guest) {
		g.pdesc(0, dataAt, 1, 0, next)
		g.pdesc(1, tablesAt, 16, 0, indirect)
	}, "INDIRECT and NEXT"},
	{"packed: empty table", 8, virtq.Format{Packed: true, Indirect: true}, func(g guest) { g.pdesc(0, tablesAt, 0, 0, indirect) }, "table of 0 bytes"},
	{"packed: table with a rest", 8, virtq.Format{Packed: true, Indirect: true}, func(g guest) { g.pdesc(0, tablesAt, 8, 0, indirect) }, "table of 8 bytes"},
	{"packed: table outside", 8, virtq.Format{Packed: true, Indirect: true}, func(g guest) { g.pdesc(0, badAt, 16, 0, indirect) }, "not RAM"},
	{"packed: huge table", 8, virtq.Format{Packed: true, Indirect: true}, func(g guest) { g.pdesc(0, ramBase, ramSize, 0, indirect) }, "more descriptors than allowed"},
	{"packed: table longer than the queue", 4, virtq.Format{Packed: true, Indirect: true}, func(g guest) { g.pdesc(0, tablesAt, 80, 0, indirect) }, "more descriptors than allowed"},
	{"packed: table of the queue's size", 4, virtq.Format{Packed: true, Indirect: true}, func(g guest) { g.pdesc(0, tablesAt, 64, 0, indirect|write) }, ""},
	{"packed: buffer outside in table", 4, virtq.Format{Packed: true, Indirect: true}, func(g guest) {
		g.pdesc(0, tablesAt, 16, 0, indirect)
		g.descAt(tablesAt, badAt, 1, 0, 0)
	}, "not RAM"},
	{"packed: order in table", 4, virtq.Format{Packed: true, Indirect: true}, func(g guest) {
		g.pdesc(0, tablesAt, 32, 0, indirect)
		g.descAt(tablesAt, dataAt, 1, 0, write)
		g.descAt(tablesAt+16, dataAt, 1, 0, 0)
	}, "readable buffer follows"},
	{"packed: flags that mean nothing in a table", 4, virtq.Format{Packed: true, Indirect: true}, func(g guest) {
		g.pdesc(0, tablesAt, 32, 0, indirect)
		g.descAt(tablesAt, dataAt, 1, 7, next|indirect)
		g.descAt(tablesAt+16, dataAt, 1, 9, 0xffff)
	}, ""},
	{"packed: any id", 4, virtq.Format{Packed: true}, func(g guest) { g.pdesc(0, dataAt, 1, 0xffff, 0) }, ""},
	{"packed: one id twice", 4, virtq.Format{Packed: true}, func(g guest) { g.pdesc(0, dataAt, 1, 1, 0); g.pdesc(1, dataAt, 1, 1, 0) }, ""},
	{"packed: reserved flags", 4, virtq.Format{Packed: true}, func(g guest) { g.pdesc(0, dataAt, 1, 0, 0x7ff8) }, ""},
	{"packed: all buffers empty", 4, virtq.Format{Packed: true}, func(g guest) {
		g.pdesc(0, badAt, 0, 0, next)
		g.pdesc(1, badAt, 0, 0, write)
	}, ""},
}

// table writes an indirect descriptor 0 and its table of n.
func (g guest) table(n int) {
	g.desc(0, tablesAt, uint32(16*n), indirect, 0)
	for i := range n {
		flags := uint16(next)
		if i == n-1 {
			flags = 0
		}
		g.descAt(tablesAt+mem.Addr(16*i), dataAt, 1, flags, uint16(i+1))
	}
}

func TestMalformed(t *testing.T) {
	for _, test := range malformed {
		t.Run(test.name, func(t *testing.T) {
			g := guest{newRig(t, test.f, test.size)}
			test.put(g)
			c := g.q.Pop()
			err := g.q.Err()
			if test.err == "" {
				if c == nil || err != nil {
					t.Fatalf("chain %v, error %v", c, err)
				}
				g.q.Push(c, 0)
				g.stop()
				return
			}
			if c != nil || err == nil || !strings.Contains(err.Error(), test.err) || !strings.HasPrefix(err.Error(), "virtqueue: ") {
				t.Fatalf("chain %v, error %v, want %q", c, err, test.err)
			}
			before := g.q.Err()
			clear(g.ram)
			g.desc(0, dataAt, 1, 0, avail) // right in both formats
			g.avail(0)
			if g.q.Pop() != nil || g.q.Err() != before {
				t.Fatalf("the error was not latched: %v", g.q.Err())
			}
			if s := g.stop(); s != g.format.Fresh() {
				t.Errorf("state %#x", s)
			}
		})
	}
	t.Logf("%d cases", len(malformed))
}

// TestInFlight: no driver makes the device hold more chains than the queue has
// descriptors. Held chains can still be pushed after the driver breaks the queue.
func TestInFlight(t *testing.T) {
	for _, packed := range []bool{false, true} {
		g := guest{newRig(t, virtq.Format{Packed: packed}, 4)}
		var held []*virtq.Chain
		for i := range 20 {
			if packed { // each lap in the slots of the last, whose chains are not used yet
				wrap := uint16(avail)
				if i/4%2 == 1 {
					wrap = used
				}
				g.descAt(descAt+mem.Addr(16*(i%4)), dataAt, 1, 0, wrap)
			} else {
				g.desc(0, dataAt, 1, 0, 0)
				g.u16(driverAt + 2).Store(uint16(i + 1))
			}
			c := g.q.Pop()
			if c == nil {
				break
			}
			held = append(held, c)
		}
		if err := g.q.Err(); len(held) != 4 || err == nil || !strings.Contains(err.Error(), "in flight") {
			t.Errorf("packed %v: %d chains, %v", packed, len(held), err)
		}
		for _, c := range held {
			g.q.Push(c, 0)
		}
		if g.interrupts.Load() != 4 {
			t.Errorf("packed %v: %d interrupts", packed, g.interrupts.Load())
		}
		g.stop()
	}
}

// TestTooLarge: the size of a chain in bytes is bounded, whatever its descriptors are.
func TestTooLarge(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for _, test := range []struct {
			n  int
			ok bool
		}{{4, true}, {5, false}} {
			// 2^32 bytes in few descriptors take RAM of 1 GiB, never touched.
			m, err := mem.Map(mem.Range{Base: 0, Size: 1 << 30})
			if err != nil {
				t.Skip(err)
			}
			defer m.Close()
			ring, err := m.Slice(0, 16*8)
			if err != nil {
				t.Fatal(err)
			}
			for i := range test.n {
				d := ring[16*i:]
				le.PutUint32(d[8:], 1<<30)
				flags, following := uint16(next|write), uint16(i+1)
				if i == test.n-1 {
					flags = write
				}
				if packed {
					flags, following = 0, flags|avail
				}
				le.PutUint16(d[12:], flags)
				le.PutUint16(d[14:], following)
			}
			f := virtq.Format{Packed: packed}
			q, err := virtq.New(m, virtq.Layout{Size: 8, Desc: 0, Driver: 0x1000, Device: 0x2000}, f, f.Fresh(), func() {})
			if err != nil {
				t.Fatal(err)
			}
			idx, _ := m.U16(0x1002)
			if !packed {
				idx.Store(1)
			}
			c := q.Pop()
			if (c != nil) != test.ok || (q.Err() == nil) != test.ok {
				t.Fatalf("packed %v, %d GiB: chain %v, %v", packed, test.n, c != nil, q.Err())
			}
			if c != nil && c.WritableLen() != 1<<32 {
				t.Errorf("%#x bytes", c.WritableLen())
			}
		}
	}
}

// TestLongest: an indirect table may be longer than the ring, up to the device's limit.
// A chain in the ring may not.
func TestLongest(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for _, test := range []struct {
			longest, n int
			ok         bool
		}{
			{0, 4, true}, {0, 5, false}, {2, 4, true}, {2, 5, false}, {4, 5, false}, {16, 5, true}, {16, 16, true}, {16, 17, false},
			{1024, 1024, true}, {1024, 1025, false}, {1 << 15, 1024, true}, {1 << 15, 1025, false},
		} {
			r := newRig(t, virtq.Format{Packed: packed, Indirect: true}, 4)
			r.q.Longest(test.longest)
			r.add(slices.Repeat([]buf{{dataAt, 1, true}}, test.n)...)
			c := r.q.Pop()
			if ok := c != nil && c.WritableLen() == uint64(test.n); ok != test.ok || (r.q.Err() == nil) != test.ok {
				t.Errorf("packed %v, a table of %d where %d are allowed: %v, %v", packed, test.n, test.longest, ok, r.q.Err())
			}
		}
	}
	for _, test := range []struct {
		name string
		put  func(g guest)
		ok   bool
	}{
		{"a loop in the ring", func(g guest) { g.desc(0, dataAt, 1, next, 1); g.desc(1, dataAt, 1, next, 0); g.avail(0) }, false},
		{"a ring of which the last is a table", func(g guest) {
			for i := range uint16(4) {
				g.desc(int(i), dataAt, 1, next, (i+1)%4)
			}
			g.desc(0, tablesAt, 16, indirect, 0)
			g.avail(1)
		}, true},
	} {
		g := guest{newRig(t, virtq.Format{Indirect: true}, 4)}
		g.q.Longest(64)
		test.put(g)
		if c := g.q.Pop(); (c != nil) != test.ok || (g.q.Err() == nil) != test.ok {
			t.Errorf("%s: %v, %v", test.name, c != nil, g.q.Err())
		}
	}
}

// TestLongChain: a chain has a limit in a larger queue too.
func TestLongChain(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		for _, n := range []int{1024, 1025} {
			r := newRig(t, f, 2048)
			bufs := make([]buf, n)
			for i := range bufs {
				bufs[i] = buf{dataAt, 1, i >= 5}
			}
			r.d.add(bufs)
			if c := r.q.Pop(); (c != nil) != (n == 1024) || (r.q.Err() == nil) != (n == 1024) {
				t.Errorf("%d descriptors: chain %v, %v", n, c != nil, r.q.Err())
			}
		}
	})
}

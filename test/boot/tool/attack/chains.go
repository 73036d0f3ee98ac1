package attack

import "fmt"

// A place is an address without RAM.
type place struct {
	name string
	addr uint64
}

// forBuffer returns the address for a buffer of n bytes: one that straddles the end of
// RAM depends on n.
func (p place) forBuffer(n uint32) uint64 {
	if p.name == straddling {
		return p.addr - uint64(n/2)
	}
	return p.addr
}

const straddling = "over the end of RAM"

// places returns the places, the same for all cases.
func (d *driver) places() []place {
	if d.nowhere == nil {
		d.nowhere = d.findPlaces()
	}
	return d.nowhere
}

func (d *driver) findPlaces() []place {
	return append([]place{
		{"the last byte", 1<<64 - 1},
		{"the last 16 bytes", 1<<64 - 16},
		{"the highest bit", 1 << 63},
		{"2^52", 1 << 52},
		{"2^40", 1 << 40},
		{"behind RAM", d.ramEnd},
		{straddling, d.ramEnd},
		{"the PCI hole", 0xc0000000},
		{"ECAM", 0xe0000000},
		{"virtio-mmio", 0xfe000000},
		{"the I/O APIC", 0xfec00000},
		{"a local APIC", 0xfee00000},
		{"the TSS of VT-x", 0xfffbd000},
		{"below 4 GiB", 1<<32 - 8},
		{"4 GiB", 1 << 32},
	}, d.port.windows()...)
}

// each returns tests for both ring formats.
func each(f func(packed bool) []test) []test { return append(f(false), f(true)...) }

func format(packed bool) string {
	if packed {
		return "packed"
	}
	return "split"
}

// addressTests put each buffer of a request where there is no RAM.
func addressTests(d *driver) []test {
	return each(func(packed bool) (tests []test) {
		for _, p := range d.places() {
			for _, s := range badBuffers(p) {
				s.name += " at " + p.name
				tests = append(tests, s.test(options{packed: packed, with: featIndirect}))
			}
		}
		return tests
	})
}

func badBuffers(p place) []shape {
	return []shape{
		{"header", refused, func(d *driver) []buf {
			d.header(reqIn, 0)
			return []buf{readable(p.forBuffer(16), 16), d.room(512), d.status()}
		}},
		{"room", refused, func(d *driver) []buf {
			return []buf{d.header(reqIn, 0), writable(p.forBuffer(512), 512), d.status()}
		}},
		{"data", refused, func(d *driver) []buf {
			return []buf{d.header(reqOut, d.zone()), readable(p.forBuffer(512), 512), d.status()}
		}},
		{"status", refused, func(d *driver) []buf {
			h := d.header(reqIn, 0)
			return []buf{h, d.room(512), writable(p.forBuffer(1), 1)}
		}},
		{"table", refused, func(d *driver) []buf {
			d.header(reqIn, 0)
			return []buf{{p.forBuffer(48), 48, descIndirect}}
		}},
	}
}

// A shape is a request and its allowed outcome.
type shape struct {
	name string
	want want
	bufs func(d *driver) []buf
}

func (s shape) test(o options) test {
	return test{format(o.packed) + "/" + s.name, o, false, func(d *driver) error { return d.try(s.want, s.bufs(d)...) }}
}

func shapeOf(o options, all []shape) (tests []test) {
	for _, s := range all {
		tests = append(tests, s.test(o))
	}
	return tests
}

// lengthTests use buffers of odd lengths.
func lengthTests() []test {
	all := []shape{
		{"more than may be moved", fails, func(d *driver) []buf {
			bufs := []buf{d.header(reqIn, 0)}
			for range 65 {
				bufs = append(bufs, d.room(dataLen))
			}
			return append(bufs, d.status())
		}},
		{"three times 4 GiB", refused, func(d *driver) []buf {
			long := writable(d.ramEnd-4096, 1<<32-1)
			return []buf{d.header(reqIn, 0), long, long, long, d.status()}
		}},
		{"of both kinds, together over 4 GiB", refused, func(d *driver) []buf {
			return []buf{d.header(reqOut, zoneStart), readable(d.ramEnd-4096, 1<<32-1), writable(d.ramEnd-4096, 1<<32-1), d.status()}
		}},
	}
	for _, n := range []uint32{0, 1, 15, 511, 513, 512*3 - 1, dataLen + 1} {
		w := fails
		if n == 0 {
			w = succeeds
		}
		all = append(all,
			shape{fmt.Sprintf("read %d", n), w, func(d *driver) []buf { return []buf{d.header(reqIn, 0), d.room(n), d.status()} }},
			shape{fmt.Sprintf("write %d", n), w, func(d *driver) []buf { return []buf{d.header(reqOut, zoneStart), d.data(n), d.status()} }})
	}
	for _, n := range []uint32{1 << 31, 1<<31 - 512, 1<<32 - 512, 1<<32 - 1} {
		all = append(all,
			shape{fmt.Sprintf("read %#x", n), refused, func(d *driver) []buf {
				return []buf{d.header(reqIn, 0), writable(d.ramEnd-4096, n), d.status()}
			}},
			shape{fmt.Sprintf("write %#x", n), refused, func(d *driver) []buf {
				return []buf{d.header(reqOut, zoneStart), readable(d.ramEnd-4096, n), d.status()}
			}},
			shape{fmt.Sprintf("header of %#x", n), refused, func(d *driver) []buf {
				d.header(reqIn, 0)
				return []buf{readable(d.ramEnd-4096, n), d.room(512), d.status()}
			}},
			shape{fmt.Sprintf("room for a serial number of %#x", n), refused, func(d *driver) []buf {
				return []buf{d.header(reqID, 0), writable(d.ramEnd-4096, n), d.status()}
			}})
	}
	return each(func(packed bool) []test { return shapeOf(options{packed: packed, size: 128}, all) })
}

// pieces cuts a buffer into pieces.
func pieces(b buf, lens ...uint32) (all []buf) {
	for _, n := range lens {
		all = append(all, buf{b.addr, n, b.flags})
		b.addr += uint64(n)
	}
	return all
}

func ones(n int) []uint32 {
	lens := make([]uint32, n)
	for i := range lens {
		lens[i] = 1
	}
	return lens
}

// shapeTests cut requests in odd ways, or omit parts.
func shapeTests() []test {
	return each(func(packed bool) []test {
		return append(shapeOf(options{packed: packed}, oddShapes), shapeOf(options{packed: packed}, badShapes)...)
	})
}

// oddShapes are legal: the way a request is cut has no meaning (§2.7.4.1).
var oddShapes = []shape{
	{"header in 16 pieces", succeeds, func(d *driver) []buf {
		return append(pieces(d.header(reqIn, 1), ones(16)...), d.room(512), d.status())
	}},
	{"header in 5 and 11", succeeds, func(d *driver) []buf {
		return append(pieces(d.header(reqIn, 1), 5, 11), d.room(512), d.status())
	}},
	{"room in 1, 510 and 1", succeeds, func(d *driver) []buf {
		return append(append([]buf{d.header(reqIn, 1)}, pieces(d.room(512), 1, 510, 1)...), d.status())
	}},
	{"room and status in one", succeeds, func(d *driver) []buf {
		h, s := d.header(reqIn, 1), d.status()
		return []buf{h, writable(s.addr-512, 513)}
	}},
	{"header and data in one", succeeds, func(d *driver) []buf {
		h := d.header(reqOut, zoneStart)
		return []buf{readable(h.addr, 16+512), d.status()}
	}},
	{"empty buffers between", succeeds, func(d *driver) []buf {
		none := readable(1<<63, 0)
		return []buf{none, d.header(reqIn, 1), none, d.room(512), writable(0, 0), d.status(), writable(1<<64-1, 0)}
	}},
	{"room over the header", succeeds, func(d *driver) []buf {
		h := d.header(reqIn, 1)
		s := d.status()
		return []buf{h, writable(h.addr, 512), s}
	}},
	{"all room the same", succeeds, func(d *driver) []buf {
		bufs := []buf{d.header(reqIn, 1)}
		for range 32 {
			bufs = append(bufs, d.room(512))
		}
		return append(bufs, d.status())
	}},
	{"a serial number for no room", succeeds, func(d *driver) []buf { return []buf{d.header(reqID, 0), d.status()} }},
	{"a serial number for one byte", succeeds, func(d *driver) []buf { return []buf{d.header(reqID, 0), d.room(1), d.status()} }},
	{"a flush with data and room", succeeds, func(d *driver) []buf {
		return []buf{d.header(reqFlush, 1<<64-1), d.data(700), d.room(700), d.status()}
	}},
	{"a read with data", succeeds, func(d *driver) []buf { return []buf{d.header(reqIn, 1), d.data(77), d.room(512), d.status()} }},
}

// badShapes are not legal.
var badShapes = []shape{
	{"header to be written", refused, func(d *driver) []buf {
		h := d.header(reqIn, 1)
		return []buf{writable(h.addr, 16), d.room(512), d.status()}
	}},
	{"status to be read", refused, func(d *driver) []buf {
		s := d.status()
		return []buf{d.header(reqOut, zoneStart), d.data(512), readable(s.addr, 1)}
	}},
	{"status before the room", handled, func(d *driver) []buf { return []buf{d.header(reqIn, 1), d.status(), d.room(510)} }},
	{"no status", refused, func(d *driver) []buf { return []buf{d.header(reqOut, zoneStart), d.data(512)} }},
	{"no header", refused, func(d *driver) []buf { d.header(reqIn, 1); return []buf{d.room(512), d.status()} }},
	{"status alone", fails, func(d *driver) []buf { d.header(reqIn, 1); return []buf{d.status()} }},
	{"header alone", refused, func(d *driver) []buf { return []buf{d.header(reqIn, 1)} }},
	{"header of 15", fails, func(d *driver) []buf {
		h := d.header(reqIn, 1)
		return []buf{readable(h.addr, 15), d.room(512), d.status()}
	}},
	{"header of 1", fails, func(d *driver) []buf {
		h := d.header(reqIn, 1)
		return []buf{readable(h.addr, 1), d.room(512), d.status()}
	}},
	{"nothing", refused, func(d *driver) []buf { d.header(reqIn, 1); return []buf{readable(1<<63, 0)} }},
	{"nothing many times", refused, func(d *driver) []buf {
		d.header(reqIn, 1)
		return append(pieces(readable(1<<63, 0), make([]uint32, 40)...), writable(0, 0))
	}},
	{"data behind the room", refused, func(d *driver) []buf {
		return []buf{d.header(reqIn, 1), d.room(512), d.data(512), d.status()}
	}},
	{"data behind the status", refused, func(d *driver) []buf {
		return []buf{d.header(reqOut, zoneStart), d.status(), d.data(512)}
	}},
	{"status over the header", handled, func(d *driver) []buf {
		h := d.header(reqIn, 1)
		return []buf{h, d.room(512), writable(h.addr, 1)}
	}},
}

package attack

import "fmt"

// typeTests use request types that do not exist.
func typeTests() []test {
	var all []shape
	for _, kind := range []uint32{2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 18, 20, 24, 26, 0x100, 0x10000, 1 << 31, 1<<32 - 1} {
		all = append(all,
			shape{fmt.Sprintf("type %#x", kind), unsupported, func(d *driver) []buf {
				return []buf{d.header(kind, zoneStart), d.data(512), d.room(512), d.status()}
			}})
	}
	return each(func(packed bool) []test { return shapeOf(options{packed: packed}, all) })
}

// sectorTests access sectors past the end of the disk, including ones that seem valid
// after an overflow.
func sectorTests(size uint64) []test {
	last := size - 1
	var all []shape
	for _, r := range []struct {
		sector uint64
		n      uint32 // sectors
	}{
		{last, 2}, {last - 1, 3}, {size, 1}, {size + 1, 1}, {0, uint32(size) + 1}, {1 << 31, 1}, {1 << 32, 1},
		{1<<54 - 1, 1}, {1 << 54, 1}, {1<<55 - 1, 1}, {1 << 55, 1}, {1<<55 + 1, 2}, {1<<63 - 1, 1}, {1 << 63, 1}, {1<<64 - 1, 1}, {1<<64 - 1, 2}, {1<<64 - 8, 16},
	} {
		all = append(all,
			shape{fmt.Sprintf("read %d from %#x", r.n, r.sector), fails, func(d *driver) []buf {
				return sectorRequest(d, reqIn, r.sector, r.n, descWrite)
			}},
			shape{fmt.Sprintf("write %d from %#x", r.n, r.sector), fails, func(d *driver) []buf {
				return sectorRequest(d, reqOut, r.sector, r.n, 0)
			}})
	}
	return each(func(packed bool) []test { return shapeOf(options{packed: packed}, all) })
}

// sectorRequest splits its data into pieces that fit our memory.
func sectorRequest(d *driver, kind uint32, sector uint64, n uint32, flags uint16) []buf {
	bufs := []buf{d.header(kind, sector)}
	for left := n * sectorSize; left > 0; {
		piece := min(left, dataLen)
		bufs = append(bufs, buf{d.mem.phys + atData, piece, flags})
		left -= piece
	}
	return append(bufs, d.status())
}

// A segment is a segment of a discard or write-zeroes request, §5.2.6.
type segment struct {
	sector   uint64
	n, flags uint32
}

// segments writes segments to memory, and returns them as one buffer.
func (d *driver) segments(all ...segment) buf {
	for i, s := range all {
		at := uint64(atTable + 16*i)
		d.mem.store(at, 8, s.sector)
		d.mem.store(at+8, 4, uint64(s.n))
		d.mem.store(at+12, 4, uint64(s.flags))
	}
	return readable(d.mem.phys+atTable, uint32(16*len(all)))
}

// segmentTests use segments that are outside the disk, too many, or cut.
func segmentTests(size uint64) []test {
	return each(func(packed bool) (tests []test) {
		for _, kind := range []uint32{reqDiscard, reqWriteZeroes} {
			all := append(badSegments(size, kind), oddSegments(kind)...)
			tests = append(tests, shapeOf(options{packed: packed, with: featDiscard | featWriteZeroes}, all)...)
			tests = append(tests, shape{fmt.Sprintf("type %d, not negotiated", kind), unsupported, func(d *driver) []buf {
				return []buf{d.header(kind, 0), d.segments(segment{zoneStart, 8, 0}), d.status()}
			}}.test(options{packed: packed}))
		}
		return tests
	})
}

func badSegments(size uint64, kind uint32) (all []shape) {
	for _, s := range []segment{
		{size, 1, 0}, {size - 1, 2, 0}, {0, 1<<32 - 1, 0}, {zoneStart, 1<<32 - 1, 0}, {zoneStart, 1 << 31, 0}, {zoneStart, 1 << 23, 0},
		{1 << 55, 1, 0}, {1<<55 - 1, 2, 0}, {1 << 54, 8, 0}, {1 << 63, 1, 0}, {1<<64 - 1, 1, 0}, {1<<64 - 8, 8, 0}, {1<<64 - 8, 16, 0},
	} {
		all = append(all, shape{fmt.Sprintf("type %d, %d from %#x", kind, s.n, s.sector), fails, func(d *driver) []buf {
			return []buf{d.header(kind, 0), d.segments(s), d.status()}
		}})
	}
	for _, flags := range []uint32{2, 3, 1 << 31, 1<<32 - 1} {
		all = append(all, shape{fmt.Sprintf("type %d, flags %#x", kind, flags), unsupported, func(d *driver) []buf {
			return []buf{d.header(kind, 0), d.segments(segment{zoneStart, 8, flags}), d.status()}
		}})
	}
	return all
}

func oddSegments(kind uint32) (all []shape) {
	bad := want{used, "\x01\x02"}
	for _, n := range []uint32{0, 1, 15, 17, 31} {
		all = append(all, shape{fmt.Sprintf("type %d, %d bytes", kind, n), bad, func(d *driver) []buf {
			d.segments(segment{zoneStart, 8, 0}, segment{zoneStart, 8, 0})
			return []buf{d.header(kind, 0), readable(d.mem.phys+atTable, n), d.status()}
		}})
	}
	many := make([]segment, 4000)
	for i := range many {
		many[i] = segment{zoneStart, 8, 0}
	}
	return append(all,
		shape{fmt.Sprintf("type %d, 4000 segments", kind), bad, func(d *driver) []buf {
			return []buf{d.header(kind, 0), d.segments(many...), d.status()}
		}},
		shape{fmt.Sprintf("type %d, the last of 3 is bad", kind), bad, func(d *driver) []buf {
			ok := segment{zoneStart, 8, 0}
			return []buf{d.header(kind, 0), d.segments(ok, ok, segment{1 << 60, 8, 0}), d.status()}
		}},
		shape{fmt.Sprintf("type %d, segments to be written", kind), bad, func(d *driver) []buf {
			s := d.segments(segment{zoneStart, 8, 0})
			return []buf{d.header(kind, 0), writable(s.addr, s.n), d.status()}
		}},
		shape{fmt.Sprintf("type %d, in pieces of one byte", kind), want{used, "\x00\x02"}, func(d *driver) []buf {
			s := d.segments(segment{zoneStart, 8, 0})
			return append(append([]buf{d.header(kind, 0)}, pieces(s, ones(16)...)...), d.status())
		}},
		shape{fmt.Sprintf("type %d, of no sectors", kind), want{used, "\x00\x02"}, func(d *driver) []buf {
			return []buf{d.header(kind, 0), d.segments(segment{zoneStart, 0, 0}), d.status()}
		}})
}

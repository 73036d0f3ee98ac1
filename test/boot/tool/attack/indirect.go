package attack

import "fmt"

// table writes an indirect table in split-ring form, and returns the descriptor that
// points to it.
func (d *driver) table(bufs ...buf) buf {
	for i, b := range bufs {
		if i < len(bufs)-1 {
			b.flags |= descNext
		}
		writeDesc(d.mem.region, atTable+16*uint64(i), b, uint16(i+1))
	}
	return buf{d.mem.phys + atTable, uint32(16 * len(bufs)), descIndirect}
}

// indirectTests abuse indirect tables, §2.7.5.3 and §2.8.7.
func indirectTests(d *driver) []test {
	tests := each(func(packed bool) []test {
		all := append(tables(), tableLengths()...)
		if !packed {
			all = append(all, splitTables()...)
		}
		tests := shapeOf(options{packed: packed, with: featIndirect}, all)
		notNegotiated := shape{"not negotiated", refused, func(d *driver) []buf { return []buf{d.table(d.request()...)} }}
		return append(tests, notNegotiated.test(options{packed: packed}))
	})
	return append(tests, test{"packed/several in a list", options{packed: true, with: featIndirect}, false, func(d *driver) error {
		t := d.table(d.request()...)
		return d.try(refused, t, t, t)
	}})
}

func tables() []shape {
	return []shape{
		{"good", succeeds, func(d *driver) []buf { return []buf{d.table(d.request()...)} }},
		{"to be written", succeeds, func(d *driver) []buf {
			t := d.table(d.request()...)
			t.flags |= descWrite // ignored, §2.7.5.3.2
			return []buf{t}
		}},
		{"a table in itself", refused, func(d *driver) []buf {
			t := d.table(d.request()...)
			return []buf{d.table(t, t, t)}
		}},
		{"a table behind a buffer in a table", handled, func(d *driver) []buf {
			b := d.request()
			return []buf{d.table(b[0], buf{d.mem.phys + atTable + 16, 32, descIndirect}, b[2])}
		}},
		{"with NEXT", refused, func(d *driver) []buf {
			b := d.request()
			return []buf{d.table(b...), b[1], b[2]}
		}},
		{"the descriptor area", anything, func(d *driver) []buf { return []buf{{d.fresh.desc, 16 * 4, descIndirect}} }},
		{"the driver area", anything, func(d *driver) []buf { return []buf{{d.fresh.driver, 16 * 4, descIndirect}} }},
		{"the device area", anything, func(d *driver) []buf { return []buf{{d.fresh.device, 16 * 4, descIndirect}} }},
		{"room over the table", anything, func(d *driver) []buf {
			b := d.request()
			b[1] = writable(d.mem.phys+atTable, 512)
			return []buf{d.table(b...)}
		}},
		{"status over the table", anything, func(d *driver) []buf {
			b := d.request()
			b[2] = writable(d.mem.phys+atTable, 1)
			return []buf{d.table(b...)}
		}},
		{"not aligned", succeeds, func(d *driver) []buf {
			for i, b := range d.request() {
				writeDesc(d.mem.region, atTable+7+16*uint64(i), buf{b.addr, b.n, b.flags | descNext*uint16((2-i+1)/2)}, uint16(i+1))
			}
			return []buf{{d.mem.phys + atTable + 7, 48, descIndirect}}
		}},
	}
}

func tableLengths() (all []shape) {
	for _, n := range []uint32{0, 1, 8, 15, 17, 47, 49, 1<<32 - 16, 1<<32 - 1, 1 << 31} {
		all = append(all, shape{fmt.Sprintf("of %#x bytes", n), refused, func(d *driver) []buf {
			t := d.table(d.request()...)
			if n >= 1<<31 {
				t.addr = d.ramEnd - 4096
			}
			t.n = n
			return []buf{t}
		}})
	}
	return append(all, shape{"of 4096 descriptors", refused, func(d *driver) []buf {
		bufs := []buf{d.header(reqIn, 1)}
		for range 4094 {
			bufs = append(bufs, writable(d.mem.phys+atData, 512))
		}
		return []buf{d.table(append(bufs, d.status())...)}
	}})
}

// splitTables abuse the next field, which packed tables do not have.
func splitTables() []shape {
	jump := func(next uint16) func(d *driver) []buf {
		return func(d *driver) []buf {
			t := d.table(d.request()...)
			d.mem.store(atTable+16+14, 2, uint64(next))
			return []buf{t}
		}
	}
	return []shape{
		{"next is itself", breaks, jump(1)},
		{"next is the first", breaks, jump(0)},
		{"next is behind the table", breaks, jump(3)},
		{"next is far behind the table", breaks, jump(0xffff)},
		{"the last has NEXT", breaks, func(d *driver) []buf {
			t := d.table(d.request()...)
			d.mem.store(atTable+32+12, 2, descWrite|descNext)
			d.mem.store(atTable+32+14, 2, 3)
			return []buf{t}
		}},
		{"behind buffers", succeeds, func(d *driver) []buf {
			b := d.request()
			return []buf{b[0], d.table(b[1:]...)}
		}},
	}
}

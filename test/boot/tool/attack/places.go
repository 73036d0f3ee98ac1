package attack

import "fmt"

// overlapTests put the areas of a queue over each other, and over requests.
func overlapTests() []test {
	return each(func(packed bool) (tests []test) {
		for _, o := range []struct {
			name                 string
			desc, driver, device uint64 // offsets in our memory
		}{
			{"all in one place", 0, 0, 0},
			{"used over available", atDesc, atDriver, atDriver},
			{"used over descriptors", atDesc, atDriver, atDesc},
			{"available over descriptors", atDesc, atDesc, atDevice},
			{"all within 64 bytes", 0, 16, 32},
			{"used behind the available index", atDesc, atDriver, atDriver + 4},
			{"used over the last descriptors", atDesc, atDriver, atDesc + 16*63},
			{"descriptors over used", atDevice + 16, atDriver, atDevice},
			{"used over headers", atDesc, atDriver, atHeader},
			{"used over statuses", atDesc, atDriver, atStatus},
			{"used over the data", atDesc, atDriver, atData},
		} {
			tests = append(tests, test{format(packed) + "/" + o.name, options{packed: packed}, true, func(d *driver) error {
				at := rings{d.mem.phys + o.desc, d.mem.phys + o.driver, d.mem.phys + o.device}
				if err := d.start(options{packed: packed, at: at}); err != nil {
					return err
				}
				d.ring = d.newRing(packed, o.desc, o.driver, o.device, 64)
				return d.try(anything, d.request()...)
			}})
		}
		return tests
	})
}

// ringPlaceTests put the areas of a queue where there is no RAM, or unaligned.
func ringPlaceTests(d *driver) []test {
	return each(func(packed bool) (tests []test) {
		add := func(name string, at rings) {
			tests = append(tests, test{format(packed) + "/" + name, options{packed: packed}, true, func(d *driver) error {
				if err := d.start(options{packed: packed, at: at}); err != nil {
					return err
				}
				d.ring.add(d.request()...)
				for range 3 {
					d.kick()
				}
				return d.judge(want{broken | quiet, ""}, 1)
			}})
		}
		for _, p := range d.places() {
			addr, small := p.forBuffer(64), p.forBuffer(64)
			if packed {
				small = p.forBuffer(1) // each has 4 bytes
			}
			add("descriptors at "+p.name, rings{desc: addr})
			add("driver area at "+p.name, rings{driver: small})
			add("device area at "+p.name, rings{device: small})
		}
		for _, skew := range []uint64{1, 2, 4, 8, 15} {
			tests = append(tests, skewed(packed, skew)...)
		}
		return tests
	})
}

// skewed puts each area at an unaligned address, if it needs more alignment than skew.
// The outcome is up to the device.
func skewed(packed bool, skew uint64) (tests []test) {
	for _, s := range []struct {
		name string
		area func(at *rings) *uint64
	}{
		{"descriptors", func(at *rings) *uint64 { return &at.desc }},
		{"driver area", func(at *rings) *uint64 { return &at.driver }},
		{"device area", func(at *rings) *uint64 { return &at.device }},
	} {
		tests = append(tests, test{fmt.Sprintf("%s/%s off by %d", format(packed), s.name, skew), options{packed: packed}, true, func(d *driver) error {
			at := d.fresh
			*s.area(&at) += skew
			if err := d.start(options{packed: packed, at: at}); err != nil {
				return err
			}
			d.ring = d.newRing(packed, at.desc-d.mem.phys, at.driver-d.mem.phys, at.device-d.mem.phys, 64)
			return d.try(want{used | broken | quiet, ""}, d.request()...)
		}})
	}
	return tests
}

// garbageTests fill everything with random descriptors. Their addresses are in our
// memory or without RAM; their disk writes go to the zone.
func garbageTests() []test {
	return each(func(packed bool) (tests []test) {
		for i := range 40 {
			o := options{packed: packed, with: featIndirect | featEventIdx*uint64(i%2)}
			tests = append(tests, test{fmt.Sprintf("%s/%d", format(packed), i), o, true, func(d *driver) error {
				if err := d.prepare(o); err != nil {
					return err
				}
				d.garbage(packed, i%4 == 3)
				d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
				for range 5 {
					d.kick()
				}
				return d.judge(anything, 64)
			}})
		}
		return tests
	})
}

// garbage fills the queue, headers and tables. Data never looks like a header, which
// could name sectors outside the zone.
func (d *driver) garbage(packed, wild bool) {
	r := d.rand
	for range 256 {
		kinds := []uint32{reqIn, reqIn, reqOut, reqFlush, reqID, r.Uint32() | 1<<20}
		d.header(kinds[r.IntN(len(kinds))], d.zone())
	}
	data := d.mem.region[atData+dataLen/2:][:dataLen/2]
	for i := range data {
		data[i] = 0xa5
	}
	for i := range uint64(64) {
		writeDesc(d.mem.region, atTable+16*i, d.anyBuf(wild), uint16(r.IntN(8)))
	}
	for i := range uint64(64) {
		b, next := d.anyBuf(wild), uint16(r.IntN(64))
		if packed {
			b.flags |= []uint16{descAvail, descAvail, descAvail, descUsed, 0}[r.IntN(5)]
			b.flags, next = next, b.flags // the ID comes first
		}
		writeDesc(d.mem.region, atDesc+16*i, b, next)
		d.mem.store(atDriver+4+2*i, 2, r.Uint64N(66))
	}
	if packed {
		d.mem.store(atDriver, 4, uint64(r.Uint32()))
	} else {
		d.mem.store(atDriver+2, 2, 1+r.Uint64N(64))
	}
}

// anyBuf returns a random descriptor for garbage.
func (d *driver) anyBuf(wild bool) buf {
	r := d.rand
	b := buf{n: []uint32{0, 1, 16, 512, 1024}[r.IntN(5)]}
	switch r.IntN(8) {
	case 0, 1, 2:
		b.addr, b.n = d.mem.phys+atHeader+16*r.Uint64N(256), 16
	case 3:
		b.addr, b.n = d.mem.phys+atTable+16*r.Uint64N(64), 16*(1+r.Uint32N(8))
		b.flags = descIndirect
	case 4:
		b.addr = d.mem.phys + atStatus + r.Uint64N(256)
		b.n, b.flags = 1, descWrite
	case 5:
		b.addr = d.mem.phys + atData + dataLen/2 + r.Uint64N(dataLen/2-1024)
	default:
		b.addr = d.mem.phys + atData + r.Uint64N(dataLen/2-1024)
		b.flags = descWrite
	}
	if all := d.places(); wild && r.IntN(3) == 0 {
		b.addr = all[r.IntN(len(all))].forBuffer(b.n)
	}
	if r.IntN(3) != 0 && b.flags&descIndirect == 0 || r.IntN(16) == 0 {
		b.flags |= descNext
	}
	return b
}

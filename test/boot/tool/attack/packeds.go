package attack

import "fmt"

// onPacked is a case on a packed ring of 64.
func onPacked(name string, with uint64, f func(d *driver, r *packedRing) error) test {
	return test{name, options{packed: true, with: with}, false, func(d *driver) error { return f(d, d.ring.(*packedRing)) }}
}

// packedTests abuse features of packed rings, §2.8.
func packedTests() []test {
	return append(append(flagTests(), listTests()...), eventTests()...)
}

// flagTests set combinations of flags in a first descriptor.
func flagTests() (tests []test) {
	for _, flags := range []uint16{0, descAvail, descUsed, descAvail | descUsed} {
		for _, more := range []uint16{0, descNext, descWrite, descIndirect, descNext | descIndirect, 0x7f78, 0x7f7f} {
			w := want{used | broken | quiet, "\x00\x01\x02\xee"}
			if flags != descAvail {
				w = anything // it looks used
			}
			tests = append(tests, onPacked(fmt.Sprintf("flags %#x", flags|more), featIndirect, func(d *driver, r *packedRing) error {
				d.header(reqIn, 1)
				r.mem.store(atDesc, 8, d.mem.phys+atHeader)
				r.mem.store(atDesc+8, 4, 16)
				r.mem.store(atDesc+14, 2, uint64(flags|more))
				d.kick()
				return d.judge(w, 1)
			}))
		}
	}
	return tests
}

// listTests use lists that are too long, cut, or mixed.
func listTests() (tests []test) {
	for _, n := range []int{63, 64} {
		w := map[int]want{63: succeeds, 64: breaks}[n] // in the list of 64, the last has NEXT
		tests = append(tests, onPacked(fmt.Sprintf("a list of %d", n), 0, func(d *driver, r *packedRing) error {
			bufs := []buf{d.header(reqIn, 1)}
			for range n - 2 {
				bufs = append(bufs, d.room(512))
			}
			last := d.status()
			if n == 64 {
				last.flags |= descNext
			}
			return d.try(w, append(bufs, last)...)
		}))
	}
	for _, id := range []uint16{0, 64, 0x7fff, 0xffff} {
		tests = append(tests, onPacked(fmt.Sprintf("buffer ID %#x", id), 0, func(d *driver, r *packedRing) error {
			r.addAs(id, d.request()...)
			d.kick()
			return d.judge(succeeds, 1)
		}))
	}
	return append(tests,
		onPacked("available but in part", 0, func(d *driver, r *packedRing) error {
			first := d.request()[0]
			first.flags |= descNext
			return d.try(breaks, first)
		}),
		onPacked("more in flight than the ring has", 0, func(d *driver, r *packedRing) error {
			for range 64 {
				r.add(d.header(reqIn, 1), d.room(512), d.status())
			}
			d.kick()
			return d.judge(anything, 64)
		}),
		onPacked("the same descriptor again and again", 0, func(d *driver, r *packedRing) error {
			r.add(d.request()...)
			d.kick()
			for range 200 {
				r.mem.store(atDesc+14, 2, descNext|descAvail)
				d.kick()
			}
			return d.judge(anything, 1)
		}),
		onPacked("a flush alone many times", 0, func(d *driver, r *packedRing) error {
			for i := range 60 {
				if err := d.one(d.header(reqFlush, 0), d.status()); err != nil {
					return fmt.Errorf("flush %d: %w", i, err)
				}
			}
			return nil
		}))
}

// eventTests put garbage into event suppression, §2.8.14.
func eventTests() (tests []test) {
	for _, with := range []uint64{0, featEventIdx} {
		for _, event := range []uint64{1 << 16, 2 << 16, 3 << 16, 0xffffffff, 2<<16 | 0x7fff, 2<<16 | 64, 2<<16 | 0x8000 | 65, 0xffff0000} {
			tests = append(tests, onPacked(fmt.Sprintf("driver event %#x, features %#x", event, with), with, func(d *driver, r *packedRing) error {
				d.mem.store(atDriver, 4, event)
				for range 70 { // more than the ring holds
					if err := d.one(d.request()...); err != nil {
						return err
					}
				}
				return nil
			}))
		}
	}
	return tests
}

package attack

import "fmt"

// onSplit is a case on a split ring of 64.
func onSplit(name string, with uint64, f func(d *driver, r *splitRing) error) test {
	return test{name, options{with: with}, false, func(d *driver) error { return f(d, d.ring.(*splitRing)) }}
}

// splitTests abuse features of split rings, §2.7.
func splitTests() []test {
	tests := append(loopTests(), headTests()...)
	tests = append(tests, indexTests()...)
	return append(tests,
		onSplit("flags are garbage", 0, func(d *driver, r *splitRing) error {
			d.mem.store(atDriver, 2, 0xffff)
			return d.try(succeeds, d.request()...)
		}),
		onSplit("used_event is garbage", featEventIdx, func(d *driver, r *splitRing) error {
			d.mem.store(atDriver+4+2*64, 2, 0x8000)
			return d.try(succeeds, d.request()...)
		}),
		onSplit("all flags of a descriptor", 0, func(d *driver, r *splitRing) error {
			r.setDesc(0, buf{d.mem.phys + atData, 512, 0xffff}, 1)
			r.offer(0)
			d.kick()
			return d.judge(breaks, 1)
		}),
		onSplit("unknown flags of descriptors", 0, func(d *driver, r *splitRing) error {
			b := d.request()
			for i := range b {
				b[i].flags |= 0xfff8
			}
			return d.try(succeeds, b...)
		}),
		onSplit("kicks of a broken queue", 0, func(d *driver, r *splitRing) error {
			r.setIdx(0x8000)
			d.kick()
			if err := d.judge(breaks, 1); err != nil {
				return err
			}
			r.setIdx(0)
			r.add(d.request()...)
			for range 100 {
				d.kick()
			}
			return d.judge(breaks, 1)
		}),
	)
}

// loopTests use endless or broken chains.
func loopTests() (tests []test) {
	loop := func(name string, n uint16, next func(i uint16) uint16, b func(d *driver) buf) {
		tests = append(tests, onSplit(name, featIndirect, func(d *driver, r *splitRing) error {
			d.header(reqIn, 0)
			for i := range n {
				c := b(d)
				c.flags |= descNext
				r.setDesc(i, c, next(i))
			}
			r.offer(0)
			d.kick()
			return d.judge(breaks, 1)
		}))
	}
	room := func(d *driver) buf { return d.room(512) }
	data := func(d *driver) buf { return d.data(16) }
	none := func(d *driver) buf { return readable(1<<63, 0) }
	for _, kind := range []struct {
		name string
		b    func(d *driver) buf
	}{{"room", room}, {"data", data}, {"nothing", none}} {
		for _, n := range []uint16{1, 2, 3, 63, 64} {
			loop(fmt.Sprintf("a loop of %d, %s", n, kind.name), n, func(i uint16) uint16 { return (i + 1) % n }, kind.b)
		}
		for _, next := range []uint16{64, 65, 255, 256, 0x7fff, 0x8000, 0xffff} {
			loop(fmt.Sprintf("next is %#x, %s", next, kind.name), 2, func(i uint16) uint16 { return []uint16{1, next}[i] }, kind.b)
		}
		loop("a loop behind 32 others, "+kind.name, 33, func(i uint16) uint16 { return min(i+1, 32) }, kind.b)
	}
	return tests
}

// headTests use heads that do not exist, or one many times.
func headTests() (tests []test) {
	for _, head := range []uint16{64, 65, 256, 0x7fff, 0x8000, 0xffff} {
		tests = append(tests, onSplit(fmt.Sprintf("head %#x", head), 0, func(d *driver, r *splitRing) error {
			r.offer(head)
			d.kick()
			return d.judge(breaks, 1)
		}))
	}
	for _, n := range []int{2, 64, 640} {
		tests = append(tests, onSplit(fmt.Sprintf("the same head %d times", n), 0, func(d *driver, r *splitRing) error {
			r.add(d.request()...)
			for i := 1; i < n; i++ {
				if r.offer(0); i%32 == 31 { // no more than 64 at once
					d.kick()
					if got := d.wait(i-16, patience); got != used {
						return fmt.Errorf("after %d it is %v", i, got)
					}
				}
			}
			d.kick()
			return d.judge(succeeds, n)
		}))
	}
	return append(tests, onSplit("chains that share descriptors", 0, func(d *driver, r *splitRing) error {
		bufs := append(pieces(d.header(reqIn, 1), ones(16)...), d.room(512), d.status())
		r.add(bufs...)
		for head := range uint16(16) {
			r.offer(head)
		}
		d.kick()
		return d.judge(want{used, ""}, 17)
	}))
}

// indexTests set the available index to invalid values.
func indexTests() (tests []test) {
	for _, idx := range []uint16{65, 66, 128, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff} {
		tests = append(tests,
			onSplit(fmt.Sprintf("index %#x", idx), 0, func(d *driver, r *splitRing) error {
				r.setIdx(idx)
				d.kick()
				return d.judge(breaks, 1)
			}),
			onSplit(fmt.Sprintf("index %#x later", idx), featEventIdx, func(d *driver, r *splitRing) error {
				if err := d.try(succeeds, d.request()...); err != nil {
					return err
				}
				r.setIdx(1 + idx)
				d.kick()
				return d.judge(breaks, 2)
			}))
	}
	back := onSplit("the index goes back", 0, func(d *driver, r *splitRing) error {
		for range 3 {
			if err := d.one(d.request()...); err != nil {
				return err
			}
		}
		r.setIdx(1)
		d.kick()
		return d.judge(breaks, 4)
	})
	wild := onSplit("the index runs wild", 0, func(d *driver, r *splitRing) error {
		r.add(d.request()...)
		for range 500 {
			r.setIdx(uint16(d.rand.Uint32()))
		}
		d.kick()
		return d.judge(anything, 1)
	})
	return append(tests, back, wild)
}

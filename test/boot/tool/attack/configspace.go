package attack

import "fmt"

// configSpaceTests write each register of configuration space: all ones, zeroes and
// random values, in 4, 2 and 1 bytes.
func (p *pciPort) configSpaceTests() (tests []test) {
	for off := 0; off < 256; off += 4 {
		tests = append(tests, p.homeward(fmt.Sprintf("%#x", off), func(d *driver) error {
			id, was := p.read(0, 4), p.read(off, 4)
			for _, v := range []uint32{0, d.rand.Uint32(), 1<<32 - 1} {
				p.write(off, 4, v)
				p.write(off+2, 2, v)
				for i := range 4 {
					p.write(off+i, 1, v)
				}
			}
			p.write(off, 4, was)
			if got := p.read(0, 4); got != id {
				return fmt.Errorf("it is another device: %#x, was %#x", got, id)
			}
			return nil
		}))
	}
	return tests
}

// accessTests use the window to BARs in configuration space, §4.1.4.9, with invalid
// places and lengths.
func (p *pciPort) accessTests() (tests []test) {
	const bar, offset, length, data = 4, 8, 12, 16
	for _, b := range []uint32{0, 1, 2, 5, 6, 0xff} {
		for _, off := range []uint32{0, 1, 0x14, 0x2000, 0x3000, 0x3ffc, 0x3fff, 0x4000, 0x80000000, 0xfffffffc, 0xffffffff} {
			tests = append(tests, p.homeward(fmt.Sprintf("BAR %#x, offset %#x", b, off), func(d *driver) error {
				p.write(p.accessAt+bar, 1, b)
				p.write(p.accessAt+offset, 4, off)
				for _, n := range []uint32{0, 1, 2, 3, 4, 8, 1<<32 - 1} {
					p.write(p.accessAt+length, 4, n)
					p.read(p.accessAt+data, 4)
					p.write(p.accessAt+data, 4, 1<<32-1)
					p.write(p.accessAt+data+1, 1, 0)
					p.read(p.accessAt+data+2, 2)
				}
				return nil
			}))
		}
	}
	return tests
}

// ecamTests access configuration space in memory, at every width, across the ends of
// functions, and where there is no function.
func (p *pciPort) ecamTests() (tests []test) {
	at, err := addressOf("MMCONFIG")
	if err != nil {
		return nil
	}
	space, err := mapFile("/dev/mem", int64(at), 1<<20)
	if err != nil {
		return []test{{"map it", options{}, true, func(*driver) error {
			return fmt.Errorf("%w: boot with iomem=relaxed", err)
		}}}
	}
	us := p.devfn() << 12
	for off := uint64(0); off < 256; off += 16 {
		tests = append(tests, p.homeward(fmt.Sprintf("%#x", off), func(d *driver) error {
			for i := range uint64(16) {
				for _, w := range widths {
					v := space.load(us+off+i, w)
					space.store(us+off+i, w, 1<<64-1)
					space.store(us+off+i, w, d.rand.Uint64())
					space.store(us+off+i, w, v)
				}
			}
			return nil
		}))
	}
	for _, off := range []uint64{0xfc, 0xff, 0x100, 0x800, 0xff8, 0xffc, 0xfff} {
		tests = append(tests, p.homeward(fmt.Sprintf("behind the registers, %#x", off), func(d *driver) error {
			for _, w := range widths {
				space.load(us+off, w)
				if off+uint64(w) <= 0x1000 { // not the next function's
					space.store(us+off, w, 1<<64-1)
				}
			}
			return nil
		}))
	}
	for _, devfn := range []uint64{1, 7, 30 << 3, 31<<3 | 7, p.devfn() | 1} {
		tests = append(tests, p.homeward(fmt.Sprintf("function %#x", devfn), func(d *driver) error {
			for off := uint64(0); off < 0x100; off += 4 {
				space.store(devfn<<12+off, 4, 1<<32-1)
			}
			if v := space.load(devfn<<12, 4); v != 1<<32-1 {
				return fmt.Errorf("there is %#x", v)
			}
			return nil
		}))
	}
	tests = append(tests, p.homeward("a BAR by 8 bytes", func(d *driver) error {
		bar := us + cfgBAR + 4*uint64(p.commonBAR)
		was := space.load(bar, 8)
		for _, to := range []uint64{0, 1<<64 - 1, was + 0x4000, was + 1<<40, 0xfee00000} {
			space.store(bar, 8, to)
			p.common.load(0x14, 1)
		}
		space.store(bar, 8, was)
		return d.good()
	}))
	return tests
}

package attack

import (
	"bytes"
	"fmt"
)

var widths = []int{1, 2, 4, 8}

// registerTests access every register at every offset and width, in a reset device and
// in a live one.
func registerTests(d *driver) (tests []test) {
	n := len(d.port.registers())
	for off := 0; off < n; off += 4 {
		for _, live := range []bool{false, true} {
			name := fmt.Sprintf("%#x, reset", off)
			if live {
				name = fmt.Sprintf("%#x, live", off)
			}
			tests = append(tests, test{name, options{}, !live, func(d *driver) error {
				if !live {
					if err := d.reset(); err != nil {
						return err
					}
				}
				for at := off; at < off+4; at++ {
					d.sweep(d.port.registers(), uint64(at))
				}
				return nil
			}})
		}
	}
	return tests
}

// sweep reads and writes at one offset. Rings get no address in RAM except 0, where the
// kernel has nothing.
func (d *driver) sweep(r region, off uint64) {
	first, last := d.port.addresses()
	for _, w := range widths {
		if off+uint64(w) > uint64(len(r)) {
			continue
		}
		r.load(off, w)
		for _, v := range []uint64{0, 1<<64 - 1, d.rand.Uint64(), 1} {
			if off+uint64(w) > first && off < last {
				v |= 0xc0000000 | 0xc0000000<<32
			}
			r.store(off, w, v)
			r.load(off, w)
		}
	}
}

// configTests write every byte of the device's configuration.
func configTests() (tests []test) {
	for off := 0; off < 0x100; off += 8 {
		tests = append(tests, test{fmt.Sprintf("%#x", off), options{}, false, func(d *driver) error {
			r := d.port.config()
			before := read(r)
			for at := off; at < off+8; at++ {
				for _, w := range widths {
					if at+w <= len(r) {
						r.load(uint64(at), w)
						r.store(uint64(at), w, 1<<64-1)
						r.store(uint64(at), w, d.rand.Uint64())
					}
				}
			}
			if after := read(r); !bytes.Equal(before, after) {
				return fmt.Errorf("it has changed from % x to % x", before, after)
			}
			return d.good()
		}})
	}
	return tests
}

// read reads registers in units of 4 bytes.
func read(r region) (b []byte) {
	for off := range uint64(len(r) / 4) {
		b = le.AppendUint32(b, uint32(r.load(4*off, 4)))
	}
	return b
}

// notifyTests kick queues that do not exist.
func notifyTests(d *driver) (tests []test) {
	if p, ok := d.port.(*pciPort); ok {
		return p.notifyTests()
	}
	for high := range uint32(16) {
		tests = append(tests, test{fmt.Sprintf("queues %#x", high<<12), options{}, false, func(d *driver) error {
			for q := high<<12 + 1; q < (high+1)<<12; q += 61 {
				d.port.notify(q)
				d.port.notify(q << 16)
			}
			return d.good()
		}})
	}
	return tests
}

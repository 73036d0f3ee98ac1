package attack

import (
	"errors"
	"fmt"
	"time"
)

// Messages. KVM treats any address as one of a local APIC and injects what the data
// says, so these are messages that the kernel's CPUs survive: an ExtINT, a reserved
// mode, and vectors below 16, which are illegal. INIT, SMI, NMI and other vectors would
// only hurt the guest itself. 0xff is Linux's vector for spurious interrupts, which it
// does not acknowledge, as the manual says; so a real interrupt with it blocks all
// others on that CPU, with any VMM and on hardware.
var (
	messageAddresses = []uint64{
		0, 0xfee00000, 0xfee01000, 0xfee0000c, 0xfeeff000, 0xfeeff00c, 0xfeefffff, 0xfec00000, 0xe0000000, 0x100000000, 1 << 40, 1 << 63, 1<<64 - 1, 0xffffffff_fee00000,
	}
	messages = []uint64{0, 1, 0xf, 0x10f, 0x3ff, 0x7ff, 0xc00f, 0x800f, 0xffff07ff, 0xfffffbff, 0xffffffff}
)

// msixTests fill the table with garbage and make the device use it.
func (p *pciPort) msixTests() (tests []test) {
	for _, addr := range append(messageAddresses, p.bar(p.commonBAR), p.bar(p.tableBAR)) {
		tests = append(tests, p.homeward(fmt.Sprintf("messages to %#x", addr), func(d *driver) error {
			p.setMSIX(msixEnable)
			p.vector(d.queue, 0, p.vectors-1)
			for i, data := range messages {
				for v := range p.vectors {
					p.entry(v, addr, data, false)
				}
				if err := d.one(d.request()...); err != nil {
					return fmt.Errorf("data %#x: %w", data, err)
				}
				if i == len(messages)/2 {
					p.setMSIX(msixEnable | msixMask)
					p.setMSIX(msixEnable)
				}
			}
			return d.by.check()
		}))
	}
	for off := uint64(0); off < 0x1000; off += 0x80 {
		tests = append(tests, p.homeward(fmt.Sprintf("the table at %#x", off), func(d *driver) error {
			for _, at := range []uint64{off, off + 1, off + 2, off + 3, off + 4, off + 8, off + 12, off + 13, off + 0x7f} {
				for _, w := range widths {
					if at+uint64(w) <= uint64(len(p.table)) {
						p.table.load(at, w)
						p.table.store(at, w, 1<<64-1)
						p.table.store(at, w, d.rand.Uint64())
						p.table.store(at, w, 0)
					}
				}
			}
			return nil
		}))
	}
	return tests
}

// vector tells virtio which vectors to use, and returns what it accepted.
func (p *pciPort) vector(of uint32, queue, config int) (q, c int) {
	p.common.store(0x10, 2, uint64(config))
	p.selectQueue(of)
	p.common.store(0x1a, 2, uint64(queue))
	return int(p.common.load(0x1a, 2)), int(p.common.load(0x10, 2))
}

const noVector = 0xffff

// vectorTests use nonexistent vectors, and turn MSI-X off and on while interrupts are
// sent.
func (p *pciPort) vectorTests(scale int) (tests []test) {
	for _, v := range []int{p.vectors, p.vectors + 1, 0x7ff, 0x800, 0x7fff, 0x8000, 0xfffe, 0xffff} {
		tests = append(tests, p.homeward(fmt.Sprintf("vector %#x", v), func(d *driver) error {
			p.setMSIX(msixEnable)
			if q, c := p.vector(d.queue, v, v); q != noVector || c != noVector {
				return fmt.Errorf("it is taken: %#x, %#x", q, c)
			}
			return d.good()
		}))
	}
	n := max(200*scale/100, 1)
	for _, control := range []uint32{0, msixMask, msixEnable | msixMask, 0x7fff} {
		tests = append(tests, p.homeward(fmt.Sprintf("MSI-X control %#x and back, %d times", control, n), func(d *driver) error {
			return p.toggle(d, n, func() { p.setMSIX(control); p.setMSIX(msixEnable) })
		}))
	}
	return append(tests,
		p.homeward("a vector masked and back", func(d *driver) error {
			return p.toggle(d, n, func() { p.table.store(12, 4, 1); p.table.store(12, 4, 0) })
		}),
		p.homeward("a message that changes", func(d *driver) error {
			return p.toggle(d, n, func() {
				p.entry(0, messageAddresses[d.rand.IntN(len(messageAddresses))], messages[d.rand.IntN(len(messages))], false)
			})
		}),
		p.homeward("a device that breaks", func(d *driver) error {
			p.setMSIX(msixEnable)
			p.vector(d.queue, 0, 1)
			p.entry(1, 0xfee00000, 0xf, true)
			d.ring.(*splitRing).setIdx(0x8000)
			d.kick()
			err := d.judge(breaks, 1)
			for end := time.Now().Add(patience); p.table.load(p.pending, 4)&2 == 0; {
				if time.Now().After(end) {
					return errors.Join(err, errors.New("no interrupt of the configuration is pending"))
				}
			}
			return err
		}))
}

// toggle repeats f on another CPU while requests are made.
func (p *pciPort) toggle(d *driver, n int, f func()) error {
	p.setMSIX(msixEnable)
	p.vector(d.queue, 0, 1)
	for v := range p.vectors {
		p.entry(v, 0xfee00000, 0xf, false)
	}
	stop := beside(f)
	defer stop()
	for i := range n / 4 {
		if i%16 == 0 {
			if err := d.start(options{}); err != nil {
				return err
			}
			p.vector(d.queue, 0, 1)
		}
		if err := d.one(d.request()...); err != nil {
			return err
		}
	}
	return nil
}

// windowTests sweep the BAR, except the registers that registerTests cover.
func (p *pciPort) windowTests() (tests []test) {
	for page := uint64(0); page < uint64(len(p.bar0)); page += 0x1000 {
		for _, off := range []uint64{0, 0x3c, 0x40, 0x7c, 0x100, 0x800, 0xff8, 0xffd} {
			at := page + off
			if at < uint64(len(p.common)) {
				continue
			}
			tests = append(tests, p.homeward(fmt.Sprintf("%#x", at), func(d *driver) error {
				for i := range uint64(5) {
					for _, w := range widths {
						if end := at + i + uint64(w); end > uint64(len(p.bar0)) {
							continue
						}
						p.bar0.load(at+i, w)
						p.bar0.store(at+i, w, 1<<64-1)
						p.bar0.store(at+i, w, d.rand.Uint64())
					}
				}
				return nil
			}))
		}
	}
	return tests
}

// notifyTests write to all places of the notification window.
func (p *pciPort) notifyTests() (tests []test) {
	for part := range uint64(16) {
		tests = append(tests, test{fmt.Sprintf("places from %#x", part<<8), options{}, false, func(d *driver) error {
			for off := part << 8; off < (part+1)<<8; off += 2 {
				for _, w := range widths {
					if end := off + uint64(w); end <= 0x1000 {
						p.bar0.store(0x3000+off, w, d.rand.Uint64())
					}
				}
			}
			return d.good()
		}})
	}
	return tests
}

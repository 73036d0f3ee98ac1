package attack

import (
	"errors"
	"fmt"
	"path/filepath"
)

// pciPort is the PCI transport, §4.1.4.
type pciPort struct {
	*function
	common, isr, door, device region
	bar0, table               region // whole BARs
	multiplier                uint64
	commonBAR, tableBAR       int
	msixAt, accessAt          int // of capabilities in configuration space
	vectors                   int
	pending                   uint64 // offset in table of the pending bits
	home                      saved
}

const (
	capVendor = 0x09
	capMSIX   = 0x11
)

// newPCI maps the BARs of a device that was unbound from its driver.
func newPCI(d device) (*pciPort, error) {
	f, err := openFunction(d.parent)
	if err != nil {
		return nil, err
	}
	p := &pciPort{function: f}
	f.setCommand(commandMemory | commandMaster)
	p.home = f.save()
	bars := map[int]region{}
	for _, c := range f.capabilities() {
		if err := p.capability(c, bars); err != nil {
			return nil, err
		}
	}
	if p.common == nil || p.isr == nil || p.door == nil || p.device == nil {
		return nil, errors.New("a structure of virtio is missing")
	}
	if p.table == nil || p.accessAt == 0 {
		return nil, errors.New("MSI-X or the access capability is missing")
	}
	p.bar0 = bars[p.commonBAR]
	return p, nil
}

func (p *pciPort) capability(c capability, bars map[int]region) (err error) {
	bar := func(i int) region {
		if bars[i] == nil && err == nil {
			size := 0x4000
			if c.kind == capMSIX {
				size = 0x1000
			}
			bars[i], err = mapFile(filepath.Join(p.dir, fmt.Sprintf("resource%d", i)), 0, size)
		}
		return bars[i]
	}
	switch {
	case c.kind == capMSIX:
		p.msixAt, p.vectors = c.at, int(le.Uint16(c.body[2:])&0x7ff)+1
		p.tableBAR = int(c.body[4] & 7)
		p.table = bar(p.tableBAR)
		p.pending = uint64(le.Uint32(c.body[8:]) &^ 7)
	case c.kind == capVendor && c.body[3] == 5:
		p.accessAt = c.at
	case c.kind == capVendor && p.read(cfgBAR+4*int(c.body[4]), 4)&1 != 0:
		// I/O ports for notifications: they cannot be mapped.
	case c.kind == capVendor:
		from, n := le.Uint32(c.body[8:]), le.Uint32(c.body[12:])
		r := bar(int(c.body[4]))
		if err != nil {
			return err
		}
		r = r[from:][:n:n]
		switch c.body[3] {
		case 1:
			p.common, p.commonBAR = r, int(c.body[4])
		case 2:
			p.door, p.multiplier = r, uint64(le.Uint32(c.body[16:]))
		case 3:
			p.isr = r
		case 4:
			p.device = r
		}
	}
	return err
}

func (p *pciPort) status() uint8     { return uint8(p.common.load(0x14, 1)) }
func (p *pciPort) setStatus(v uint8) { p.common.store(0x14, 1, uint64(v)) }

func (p *pciPort) offered() uint64 {
	p.common.store(0x00, 4, 0)
	low := p.common.load(0x04, 4)
	p.common.store(0x00, 4, 1)
	return low | p.common.load(0x04, 4)<<32
}

func (p *pciPort) choose(features uint64) {
	p.common.store(0x08, 4, 0)
	p.common.store(0x0c, 4, features&0xffffffff)
	p.common.store(0x08, 4, 1)
	p.common.store(0x0c, 4, features>>32)
}

func (p *pciPort) selectQueue(q uint32) { p.common.store(0x16, 2, uint64(q)) }
func (p *pciPort) queueMax() uint32     { return uint32(p.common.load(0x18, 2)) }
func (p *pciPort) setSize(n uint32)     { p.common.store(0x18, 2, uint64(n)) }
func (p *pciPort) enable(v uint32)      { p.common.store(0x1c, 2, uint64(v)) }
func (p *pciPort) isEnabled() bool      { return p.common.load(0x1c, 2) != 0 }
func (p *pciPort) resetQueue()          { p.common.store(0x3a, 2, 1) }
func (p *pciPort) resetting() bool      { return p.common.load(0x3a, 2) != 0 }
func (p *pciPort) interrupts()          { p.isr.load(0, 1) }

// notify kicks a queue at its place in the window, or at the last place if it has none.
// (Each queue's queue_notify_off is its number.)
func (p *pciPort) notify(q uint32) {
	off := min(uint64(q)*p.multiplier, uint64(len(p.door))-4)
	p.door.store(off, 2, uint64(q))
}

func (p *pciPort) setRings(r rings) {
	for i, a := range []uint64{r.desc, r.driver, r.device} {
		p.common.store(0x20+8*uint64(i), 4, a&0xffffffff)
		if a>>32 != 0 { // 0 after a reset
			p.common.store(0x24+8*uint64(i), 4, a>>32)
		}
	}
}

func (p *pciPort) config() region                  { return p.device[:0x100] }
func (p *pciPort) registers() region               { return p.common }
func (p *pciPort) addresses() (first, last uint64) { return 0x20, 0x38 }

func (p *pciPort) windows() []place {
	return []place{{"its own BAR", p.bar(p.commonBAR)}, {"its MSI-X table", p.bar(p.tableBAR)}}
}

// setMSIX writes Message Control, §6.8.2.3.
func (p *pciPort) setMSIX(v uint32) { p.function.write(p.msixAt+2, 2, v) }

const (
	msixEnable = 1 << 15
	msixMask   = 1 << 14
)

// entry writes an entry of the MSI-X table: masked, then the message, then control.
func (p *pciPort) entry(i int, addr, data uint64, masked bool) {
	at := uint64(16 * i)
	p.table.store(at+12, 4, 1)
	p.table.store(at, 4, addr&0xffffffff)
	p.table.store(at+4, 4, addr>>32)
	p.table.store(at+8, 4, data)
	if !masked {
		p.table.store(at+12, 4, 0)
	}
}

// goHome undoes what cases do outside virtio's registers.
func (p *pciPort) goHome() {
	p.restore(p.home)
	p.setMSIX(0)
	for i := range p.vectors {
		p.entry(i, 0, 0, true)
	}
}

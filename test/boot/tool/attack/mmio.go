package attack

import "path/filepath"

// mmioPort is the memory-mapped transport, §4.2.2.
type mmioPort struct {
	region
	phys uint64
}

// newMMIO maps the registers of a device that was unbound from its driver.
func newMMIO(d device) (*mmioPort, error) {
	at, err := addressOf(filepath.Base(d.parent))
	if err != nil {
		return nil, err
	}
	r, err := mapFile("/dev/mem", int64(at), 0x1000)
	return &mmioPort{r, at}, err
}

func (p *mmioPort) get(off uint64) uint32    { return uint32(p.load(off, 4)) }
func (p *mmioPort) set(off uint64, v uint32) { p.store(off, 4, uint64(v)) }

func (p *mmioPort) status() uint8     { return uint8(p.get(0x70)) }
func (p *mmioPort) setStatus(v uint8) { p.set(0x70, uint32(v)) }

func (p *mmioPort) offered() uint64 {
	p.set(0x14, 0)
	low := uint64(p.get(0x10))
	p.set(0x14, 1)
	return low | uint64(p.get(0x10))<<32
}

func (p *mmioPort) choose(features uint64) {
	p.set(0x24, 0)
	p.set(0x20, uint32(features))
	p.set(0x24, 1)
	p.set(0x20, uint32(features>>32))
}

func (p *mmioPort) selectQueue(q uint32) { p.set(0x30, q) }
func (p *mmioPort) queueMax() uint32     { return p.get(0x34) }
func (p *mmioPort) setSize(n uint32)     { p.set(0x38, n) }
func (p *mmioPort) enable(v uint32)      { p.set(0x44, v) }
func (p *mmioPort) isEnabled() bool      { return p.get(0x44) != 0 }
func (p *mmioPort) resetQueue()          { p.set(0xc0, 1) }
func (p *mmioPort) resetting() bool      { return p.get(0xc0) != 0 }
func (p *mmioPort) notify(q uint32)      { p.set(0x50, q) }
func (p *mmioPort) interrupts()          { p.set(0x64, p.get(0x60)) }

func (p *mmioPort) setRings(r rings) {
	for i, a := range []uint64{r.desc, r.driver, r.device} {
		p.set(0x80+0x10*uint64(i), uint32(a))
		if a>>32 != 0 { // 0 after a reset
			p.set(0x84+0x10*uint64(i), uint32(a>>32))
		}
	}
}

func (p *mmioPort) config() region                  { return p.region[0x100:0x200] }
func (p *mmioPort) registers() region               { return p.region[:0x100] }
func (p *mmioPort) addresses() (first, last uint64) { return 0x80, 0xa8 }

func (p *mmioPort) windows() []place {
	return []place{{"its own registers", p.phys}, {"the next device's registers", p.phys + 0x1000}}
}

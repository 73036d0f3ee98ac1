package attack

import (
	"errors"
	"fmt"
)

// groups returns the cases for PCI alone.
func (p *pciPort) groups(d *driver, scale int) []group {
	return []group{
		{"pci-bars", p.barTests(d)},
		{"pci-decode", p.decodeTests(scale)},
		{"pci-config", p.configSpaceTests()},
		{"pci-access", p.accessTests()},
		{"pci-ecam", p.ecamTests()},
		{"pci-msix", p.msixTests()},
		{"pci-vectors", p.vectorTests(scale)},
		{"pci-window", p.windowTests()},
	}
}

// homeward is a case that restores configuration space at the end.
func (p *pciPort) homeward(name string, f func(d *driver) error) test {
	return test{name, options{}, false, func(d *driver) error {
		defer p.goHome()
		return f(d)
	}}
}

// barPlaces returns addresses to move a BAR to.
func (p *pciPort) barPlaces(d *driver) []place {
	all := []place{
		{"0", 0},
		{"the first MiB", 0x10000},
		{"our memory", d.mem.phys},
		{"the end of RAM", d.ramEnd - 0x4000},
		{"behind RAM", d.ramEnd},
		{"the first window", 0xc0000000},
		{"the end of the first window", 0xe0000000 - 0x4000},
		{"over the end of the first window", 0xe0000000 - 0x1000},
		{"ECAM", 0xe0000000},
		{"virtio-mmio", 0xfe000000},
		{"the I/O APIC", 0xfec00000},
		{"a local APIC", 0xfee00000},
		{"the TSS of VT-x", 0xfffbc000},
		{"below 4 GiB", 1<<32 - 0x4000},
		{"4 GiB", 1 << 32},
		{"2^39", 1 << 39},
		{"2^52", 1 << 52},
		{"the highest bit", 1 << 63},
		{"the top", 1<<64 - 0x4000},
		{"all ones", 1<<64 - 1},
		{"its other BAR", p.bar(p.tableBAR)},
		{"its own first BAR", p.bar(p.commonBAR)},
		{"next to its own", p.bar(p.commonBAR) + 0x4000},
	}
	for _, f := range p.neighbours() {
		for i := range 6 {
			if at := f.bar(i); at != 0 {
				all = append(all, place{fmt.Sprintf("BAR %d of device %d", i, f.devfn()>>3), at})
			}
		}
	}
	return all
}

// barTests move each BAR with decoding on, off, and with requests in flight.
// The bystander's BARs are among the places.
func (p *pciPort) barTests(d *driver) (tests []test) {
	for _, bar := range []int{p.commonBAR, p.tableBAR} {
		for _, way := range []string{"", ", decoding off meanwhile", ", in flight"} {
			if way != "" && bar == p.tableBAR {
				break
			}
			for _, to := range p.barPlaces(d) {
				tests = append(tests, p.homeward(fmt.Sprintf("BAR %d to %s%s", bar, to.name, way), func(d *driver) error {
					return p.moveTo(d, bar, to, way)
				}))
			}
		}
	}
	return tests
}

func (p *pciPort) moveTo(d *driver, bar int, to place, way string) error {
	switch way {
	case ", decoding off meanwhile":
		p.setCommand(commandMaster)
	case ", in flight":
		d.burst(8, false)
	}
	p.move(bar, to.addr)
	p.setCommand(commandMemory | commandMaster)
	for range 3 {
		p.door.store(0, 2, 0)
		p.common.store(0x16, 2, 0)
		p.common.load(0x14, 1)
		p.table.load(0, 4)
	}
	err := d.by.check()
	p.restore(p.home)
	if at, home := p.bar(bar), p.barAtHome(bar); at != home {
		return fmt.Errorf("BAR %d is at %#x, was at %#x", bar, at, home)
	}
	if got := d.port.status(); got&driverOK == 0 {
		return errors.Join(err, fmt.Errorf("after it moved back its status is %#x", got))
	}
	if way == ", in flight" {
		d.kick()
		return errors.Join(err, d.judge(succeeds, 8))
	}
	return errors.Join(err, d.good())
}

// barAtHome returns the address of a BAR before any case.
func (p *pciPort) barAtHome(i int) uint64 {
	v := uint64(p.home[4+i])
	addr := v &^ 0xf
	if v&6 == 4 {
		addr |= uint64(p.home[5+i]) << 32
	}
	return addr
}

// decodeTests turn memory decoding off and on with requests in flight.
func (p *pciPort) decodeTests(scale int) (tests []test) {
	n := max(300*scale/100, 1)
	for _, other := range []uint32{0, commandMaster, 0x400 | commandMaster} {
		tests = append(tests, p.homeward(fmt.Sprintf("command %#x and back, %d times", other, n), func(d *driver) error {
			chains := 0
			for i := range n {
				if i%16 == 0 && chains < 20 {
					d.burst(2, false)
					chains += 2
				}
				p.setCommand(other)
				p.door.store(0, 2, 0)
				p.setCommand(commandMemory | commandMaster)
			}
			d.kick()
			return d.judge(succeeds, chains)
		}))
	}
	return append(tests,
		p.homeward("a BAR that wanders", func(d *driver) error {
			d.burst(20, false)
			for i := range uint64(n) {
				p.move(p.commonBAR, p.barAtHome(p.commonBAR)+0x4000*(1+i%64))
			}
			p.restore(p.home)
			d.kick()
			return errors.Join(d.judge(succeeds, 20), d.by.check())
		}),
		p.homeward("two CPUs", func(d *driver) error {
			stop := beside(func() {
				p.setCommand(commandMaster)
				p.setCommand(commandMaster | commandMemory)
			})
			for range 20 {
				d.burst(1, false)
				for range 20 {
					p.door.store(0, 2, 0)
				}
			}
			stop()
			p.setCommand(commandMemory | commandMaster)
			d.kick()
			return d.judge(succeeds, 20)
		}))
}

package virtiotest

import "vmm/bus"

// Configuration space, PCI 3.0 §6.1 and virtio 1.2 §4.1.4.
const (
	cfgCommand      = 0x04
	cfgStatus       = 0x06
	cfgBAR          = 0x10
	cfgCapabilities = 0x34
	cfgInterruptPin = 0x3d

	commandIO          = 1 << 0
	commandMemory      = 1 << 1
	commandMaster      = 1 << 2
	commandINTxDisable = 1 << 10

	vendorSpecific = 0x09
	msix           = 0x11

	capCommon, capNotify, capISR, capDevice, capAccess = 1, 2, 3, 4, 5

	msixEnable = 1 << 15
	msixMask   = 1 << 14
)

// pciAccess is the PCI transport, as a guest discovers it.
type pciAccess struct {
	b *Board
	s *Slot

	bars       [6]uint64 // their addresses; 0 means none
	sizes      [6]uint64
	ports      [6]bool              // in I/O space
	structures [capAccess + 1]place // except those for notifications
	length     [capAccess + 1]uint64
	bells      []bell // all
	bell       bell   // the one in use
	accessCap  int    // offset of VIRTIO_PCI_CAP_PCI_CFG
	msixCap    int
	tableBAR   int
	table, pba uint64 // addresses
}

// A bell is a structure for notifications, §4.1.4.4.
type bell struct {
	bar                      int
	offset, addr, multiplier uint64
	length                   uint64
}

// cfg and setCfg access configuration space: through memory with MSI-X, through ports
// with INTx, so that both ways are tested.
func (a *pciAccess) cfg(reg, width int) uint32 {
	var p [4]byte
	if a.s.Kind == MSIX {
		a.b.Memory.Read(ecamBase+uint64(a.s.slot)<<15+uint64(reg), p[:width])
	} else {
		a.point(reg)
		a.b.Ports.Read(portBase+4+uint64(reg&3), p[:width])
	}
	return le.Uint32(p[:])
}

func (a *pciAccess) setCfg(reg, width int, v uint32) {
	var p [4]byte
	le.PutUint32(p[:], v)
	if a.s.Kind == MSIX {
		a.b.Memory.Write(ecamBase+uint64(a.s.slot)<<15+uint64(reg), p[:width])
	} else {
		a.point(reg)
		a.b.Ports.Write(portBase+4+uint64(reg&3), p[:width])
	}
}

func (a *pciAccess) point(reg int) {
	a.b.Ports.Write(portBase, le.AppendUint32(nil, 1<<31|uint32(a.s.slot)<<11|uint32(reg&^3)))
}

func (a *pciAccess) find() {
	if id := a.cfg(0, 4); id != 0x1040_1af4+uint32(a.s.Device.ID())<<16 {
		a.b.tb.Fatalf("slot %d has %#x", a.s.slot, id)
	}
	a.setCfg(cfgCommand, 2, 0)
	a.size()
	for i, size := range a.sizes {
		if size != 0 {
			a.placeBAR(i, a.home(i))
		}
	}
	a.capabilities()
	command := uint32(commandMemory | commandMaster)
	if a.s.Kind == MSIX {
		command |= commandINTxDisable | commandIO
	}
	a.setCfg(cfgCommand, 2, command)
	a.setMSIX(a.s.Kind == MSIX)
}

// home returns where a guest puts a BAR: not where firmware put it.
func (a *pciAccess) home(i int) uint64 {
	base := uint64(winBase + 0x80_0000)
	switch {
	case a.ports[i]:
		return winPorts + 0x4000 + uint64(a.s.slot)<<8
	case a.is64(i):
		base = win64 + 0x1000_0000
	}
	return base + uint64(a.s.slot)<<20 + uint64(i)<<16
}

func (a *pciAccess) is64(i int) bool { return a.cfg(cfgBAR+4*i, 4)&7 == 2<<1 }

// size determines the sizes of the BARs, §6.2.5.1.
func (a *pciAccess) size() {
	for i := 0; i < 6; i++ {
		reg := cfgBAR + 4*i
		a.setCfg(reg, 4, 0xffffffff)
		bits := a.cfg(reg, 4)
		n, mask := i, uint64(bits&^0xf)
		if a.ports[i] = bits&1 != 0; a.ports[i] {
			mask = uint64(bits &^ 3)
		}
		if mask == 0 {
			continue
		}
		if a.is64(i) {
			a.setCfg(reg+4, 4, 0xffffffff)
			mask |= uint64(a.cfg(reg+4, 4)) << 32
			i++
		} else {
			mask |= 0xffffffff << 32
		}
		a.sizes[n] = -mask
	}
}

func (a *pciAccess) placeBAR(i int, addr uint64) {
	a.setCfg(cfgBAR+4*i, 4, uint32(addr))
	if a.is64(i) {
		a.setCfg(cfgBAR+4*i+4, 4, uint32(addr>>32))
	}
	a.bars[i] = addr
}

// capabilities walks the capability list, §6.7.
func (a *pciAccess) capabilities() {
	a.bells = nil
	if a.cfg(cfgStatus, 2)>>4&1 == 0 {
		a.b.tb.Fatal("no capabilities")
	}
	at := int(a.cfg(cfgCapabilities, 1))
	for n := 0; at != 0; n++ {
		if n == 48 || at < 0x40 || at&3 != 0 {
			a.b.tb.Fatalf("a capability at %#x", at)
		}
		switch a.cfg(at, 1) {
		case msix:
			a.msixCap = at
			table, pba := a.cfg(at+4, 4), a.cfg(at+8, 4)
			a.tableBAR = int(table & 7)
			a.table = a.bars[table&7] + uint64(table&^7)
			a.pba = a.bars[pba&7] + uint64(pba&^7)
		case vendorSpecific:
			a.structure(at)
		}
		at = int(a.cfg(at+1, 1))
	}
	for kind := capCommon; kind <= capDevice; kind++ {
		if a.structures[kind].width == 0 && kind != capNotify {
			a.b.tb.Fatalf("no capability of type %d", kind)
		}
	}
	for _, bell := range a.bells { // use the first that is usable
		if a.s.Kind == MSIX || !a.ports[bell.bar] {
			a.bell = bell
			return
		}
	}
	a.b.tb.Fatal("no capability for notifications")
}

// structure reads a struct virtio_pci_cap, §4.1.4.
func (a *pciAccess) structure(at int) {
	kind, bar := a.cfg(at+3, 1), int(a.cfg(at+4, 1))
	offset, length := uint64(a.cfg(at+8, 4)), uint64(a.cfg(at+12, 4))
	switch {
	case kind == capAccess:
		a.accessCap = at
	case kind == capNotify:
		a.bells = append(a.bells, bell{bar, offset, a.bars[bar] + offset, uint64(a.cfg(at+16, 4)), length})
	case kind < capAccess && a.structures[kind].width == 0:
		a.structures[kind] = place{a.bars[bar] + offset, 1}
		a.length[kind] = length
	}
}

// space returns the bus that a BAR is on.
func (a *pciAccess) space(bar int) *bus.Bus {
	if a.ports[bar] {
		return &a.b.Ports
	}
	return &a.b.Memory
}

// setMSIX gives each vector a message and turns MSI-X on, or turns it off.
func (a *pciAccess) setMSIX(on bool) {
	if a.msixCap == 0 {
		return
	}
	if !on {
		a.setCfg(a.msixCap+2, 2, 0)
		return
	}
	a.setCfg(a.msixCap+2, 2, msixEnable|msixMask)
	for i := range a.s.Vectors {
		e := a.table + 16*uint64(i)
		a.b.write(e, 4, 0xfee00000)
		a.b.write(e+4, 4, 0)
		a.b.write(e+8, 4, uint32(0x40+i))
		a.b.write(e+12, 4, 0)
	}
	a.setCfg(a.msixCap+2, 2, msixEnable)
}

// mask masks or unmasks one vector.
func (a *pciAccess) mask(i int, on bool) {
	v := uint32(0)
	if on {
		v = 1
	}
	a.b.write(a.table+16*uint64(i)+12, 4, v)
}

func (a *pciAccess) pending(i int) bool { return a.b.read(a.pba+uint64(i)/32*4, 4)>>(i%32)&1 != 0 }

func (a *pciAccess) register(r Register) (uint64, int) {
	if r == ISR {
		return a.structures[capISR].off, 1
	}
	p := commonPlaces[r]
	return a.structures[capCommon].off + p.off, p.width
}

func (a *pciAccess) config() (uint64, uint64) {
	return a.structures[capDevice].off, a.length[capDevice]
}

// notify needs queue_notify_off, which was checked to be the queue's number.
func (a *pciAccess) notify(queue int) (*bus.Bus, uint64, []byte) {
	return a.space(a.bell.bar), a.bell.addr + a.bell.multiplier*uint64(queue), le.AppendUint16(nil, uint16(queue))
}

func (a *pciAccess) signals(queue int) *Signals {
	if a.s.Kind == INTx {
		return a.s.Line.Signals
	}
	if queue < 0 {
		queue = len(a.s.Vectors) - 1
	}
	return a.s.Vectors[queue].Signals
}

func (a *pciAccess) handle() uint32 {
	if a.s.Kind == MSIX {
		return 0
	}
	return a.b.read(a.structures[capISR].off, 1)
}

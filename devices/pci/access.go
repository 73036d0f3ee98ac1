package pci

import "vmm/bus"

// PortsSize and ECAMSize are the address space sizes of Ports and ECAM.
const (
	PortsSize = 8       // from port 0xcf8
	ECAMSize  = 1 << 20 // bus 0
)

// CONFIG_ADDRESS, §3.2.2.3.2: enable, bus, device and function, register.
const (
	addressEnable = 1 << 31
	addressMask   = addressEnable | 0xff_fffc
)

// Ports returns configuration mechanism #1, CONFIG_ADDRESS and CONFIG_DATA. Accesses
// narrower than CONFIG_ADDRESS also go to beside, a device at the same four ports,
// unless it is nil.
func (b *Bus) Ports(beside bus.Device) bus.Device { return ports{b, beside} }

// ECAM returns configuration space in memory, 4 KiB per function (PCIe §7.2.2).
func (b *Bus) ECAM() bus.Device { return ecam{b} }

type ports struct {
	b      *Bus
	beside bus.Device
}

// Read implements bus.Device. An access that crosses a 4-byte boundary is two on the
// bus. Only an access to the whole of CONFIG_ADDRESS reaches that register: narrower
// ones are for the other device at these ports.
func (d ports) Read(off uint64, p []byte) {
	if narrow := narrow(off, p); d.beside != nil && narrow != nil {
		d.beside.Read(off, narrow)
	}
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	address, data, at := split(off, p)
	if address != nil {
		le.PutUint32(address, d.b.address)
	}
	if f, reg := d.b.selected(); f != nil && len(data) != 0 {
		f.read(reg+at, data)
	}
}

// Write implements bus.Device.
func (d ports) Write(off uint64, p []byte) {
	if narrow := narrow(off, p); d.beside != nil && narrow != nil {
		d.beside.Write(off, narrow)
	}
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	address, data, at := split(off, p)
	if address != nil {
		d.b.address = le.Uint32(address) & addressMask
	}
	if f, reg := d.b.selected(); f != nil && len(data) != 0 {
		f.write(reg+at, data)
		d.b.apply(f)
	}
}

// narrow returns the part of an access that is for CONFIG_ADDRESS's ports but not for
// that register, or nil.
func narrow(off uint64, p []byte) []byte {
	if n := min(4-int(off), len(p)); n > 0 && n < 4 {
		return p[:n]
	}
	return nil
}

// split returns the part of an access for CONFIG_ADDRESS, the part for CONFIG_DATA,
// and where in CONFIG_DATA that starts.
func split(off uint64, p []byte) (address, data []byte, at int) {
	if off < 4 {
		n := min(4-int(off), len(p))
		if n == 4 {
			address = p[:4]
		}
		p, off = p[n:], 4
	}
	if off < PortsSize {
		at = int(off) - 4
		data = p[:min(4-at, len(p))]
	}
	return address, data, at
}

// selected returns the function and register that CONFIG_ADDRESS names.
func (b *Bus) selected() (*Function, int) {
	if b.address&addressEnable == 0 || b.address>>16&0xff != 0 {
		return nil, 0
	}
	return b.at(uint64(b.address >> 8 & 0xff)), int(b.address & 0xfc)
}

// at returns the function with this number (device and function), or nil.
func (b *Bus) at(devfn uint64) *Function {
	if slot := devfn >> 3; devfn&7 == 0 && slot < uint64(len(b.functions)) {
		return b.functions[slot]
	}
	return nil
}

type ecam struct{ b *Bus }

// Read implements bus.Device.
func (d ecam) Read(off uint64, p []byte) {
	d.each(off, p, (*Function).read)
}

// Write implements bus.Device. All bytes are written before they take effect, so that
// one 8-byte access can move a 64-bit BAR.
func (d ecam) Write(off uint64, p []byte) {
	d.each(off, p, func(f *Function, reg int, p []byte) {
		f.write(reg, p)
		d.b.apply(f)
	})
}

// each does an access, with configuration space locked. An access that spans two
// functions becomes one to each.
func (d ecam) each(off uint64, p []byte, do func(f *Function, reg int, p []byte)) {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	for len(p) != 0 {
		reg := int(off & 0xfff)
		n := min(len(p), 0x1000-reg)
		if f := d.b.at(off >> 12); f != nil {
			do(f, reg, p[:n])
		}
		off, p = off+uint64(n), p[n:]
	}
}

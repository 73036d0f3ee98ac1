package pci

import "encoding/binary"

// configSize is the size of a conventional function's configuration space, §6.1.
const configSize = 256

// Registers of the header of type 0, §6.1.
const (
	regVendorID          = 0x00
	regDeviceID          = 0x02
	regCommand           = 0x04
	regStatus            = 0x06
	regRevisionID        = 0x08
	regClassCode         = 0x09
	regCacheLineSize     = 0x0c
	regLatencyTimer      = 0x0d
	regBAR               = 0x10
	regSubsystemVendorID = 0x2c
	regSubsystemID       = 0x2e
	regCapabilities      = 0x34
	regInterruptLine     = 0x3c
	regInterruptPin      = 0x3d

	headerSize = 0x40
)

// Command, §6.2.2. In a function without I/O BARs, commandIO is fixed at 0.
const (
	commandIO          = 1 << 0
	commandMemory      = 1 << 1
	commandMaster      = 1 << 2
	commandParity      = 1 << 6
	commandSERR        = 1 << 8
	commandINTxDisable = 1 << 10

	commandWritable = commandMemory | commandMaster | commandParity | commandSERR | commandINTxDisable
)

// Status, §6.2.3.
const (
	statusInterrupt    = 1 << 3
	statusCapabilities = 1 << 4
	statusErrors       = 0xf900 // parity and abort bits, cleared by writing 1
)

const pinINTA = 1

var le = binary.LittleEndian

// A capWindow is a capability with live bytes.
type capWindow struct {
	body, live, end int // offsets in configuration space
	refresh, commit func(body []byte)
}

// newFunction lays out the configuration space of d.
func newFunction(d Device, slot int, vectors []Vector) *Function {
	f := &Function{slot: slot, dev: d}
	f.intx.bit = 1 << slot
	f.header(d.Ident())
	for i, r := range d.BARs() {
		if r.Size != 0 {
			f.addBAR(i, bar{BAR: r})
		}
	}
	next, at := regCapabilities, headerSize
	for _, c := range d.Capabilities() {
		f.link(&next, &at, c)
	}
	if len(vectors) != 0 {
		f.msixAt = at
		f.link(&next, &at, f.addMSIX(vectors))
	}
	return f
}

func (f *Function) header(id Ident) {
	c := f.initial[:]
	le.PutUint16(c[regVendorID:], id.Vendor)
	le.PutUint16(c[regDeviceID:], id.Device)
	le.PutUint32(c[regRevisionID:], id.Class<<8|uint32(id.Revision))
	le.PutUint16(c[regSubsystemVendorID:], id.Subvendor)
	le.PutUint16(c[regSubsystemID:], id.Subdevice)

	le.PutUint16(f.writable[regCommand:], commandWritable)
	le.PutUint16(f.clears[regStatus:], statusErrors)
	f.writable[regCacheLineSize] = 0xff
	f.writable[regLatencyTimer] = 0xff
	f.writable[regInterruptLine] = 0xff // a scratch register for the guest, §6.2.4
}

// link puts c at offset *at, makes the pointer at *next point to it, and advances
// both. Capabilities are aligned to 4 bytes, §6.7.
func (f *Function) link(next, at *int, c Capability) {
	start, body := *at, *at+2
	end := body + len(c.Body)
	if end > configSize {
		panic("internal error: pci: capabilities do not fit into configuration space")
	}
	if c.Writable != nil && len(c.Writable) != len(c.Body) || c.Live < 0 || c.Live > len(c.Body) {
		panic("internal error: pci: capability with a mask of another size")
	}
	le.PutUint16(f.initial[regStatus:], statusCapabilities)
	f.initial[*next] = byte(start)
	f.initial[start] = c.ID
	copy(f.initial[body:], c.Body)
	copy(f.writable[body:], c.Writable)
	if c.Refresh != nil || c.Commit != nil {
		for i := body + c.Live; i < end; i++ {
			f.writable[i] = 0xff
		}
		f.windows = append(f.windows, capWindow{body, body + c.Live, end, c.Refresh, c.Commit})
	}
	*next, *at = start+1, (end+3)&^3
}

// power sets the registers to their reset values, without applying them.
func (f *Function) power() { f.config = f.initial }

func (f *Function) command() uint16 { return le.Uint16(f.config[regCommand:]) }

// read and write access registers, with Bus.mu held. Bytes after the first 256 read
// as 0, as in a function without extended capabilities (PCIe §7.6.1). Behind a bridge
// to a conventional bus they would be all ones. Linux looks there only at host
// bridges and PCI Express functions, and takes either value for "nothing".
func (f *Function) read(reg int, p []byte) {
	for _, w := range f.windows {
		if w.refresh != nil && reg < w.end && reg+len(p) > w.live {
			w.refresh(f.config[w.body:w.end:w.end])
		}
	}
	n := 0
	if reg < configSize {
		n = copy(p, f.config[reg:])
	}
	clear(p[n:])
	if i := regStatus - reg; i >= 0 && i < len(p) && f.intx.pending() {
		p[i] |= statusInterrupt
	}
}

func (f *Function) write(reg int, p []byte) {
	for i, v := range p {
		if r := reg + i; r < configSize {
			w := f.writable[r]
			f.config[r] = (f.config[r]&^w | v&w) &^ (v & f.clears[r])
		}
	}
	for _, w := range f.windows {
		if w.commit != nil && reg < w.end && reg+len(p) > w.live {
			w.commit(f.config[w.body:w.end:w.end])
		}
	}
}

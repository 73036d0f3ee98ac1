package virtio

import (
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"

	"vmm/bus"
	"vmm/devices/pci"
	"vmm/logline"
)

// The memory BAR of a PCI device and its layout. The structures are a page apart, so
// that a host can treat each differently.
const (
	pciBAR       = 0
	pciCommon    = 0x0000
	pciISR       = 0x1000
	pciConfig    = 0x2000
	pciNotify    = 0x3000
	pciSize      = 0x4000
	pciStructure = 0x1000

	notifyMultiplier = 4 // notify_off_multiplier: a queue's notification offset is its number times this
)

// The port BAR has a second notification structure, with one address for all queues.
// The value written selects the queue, so it suits any number of them. For a write to
// memory, most processors make the host fetch and decode the guest's instruction; for
// a write to a port, the processor itself reports what was written.
const (
	portBAR  = 2 // BAR 0 takes two registers
	portSize = 4

	portMultiplier = 0
	portWidth      = 2 // what a driver writes, §4.1.5.2
)

// noVector is VIRTIO_MSI_NO_VECTOR, §4.1.5.1.2.
const noVector = 0xffff

// PCI is a device behind the PCI transport (§4.1), the modern one only.
type PCI struct {
	*core
	class    uint32
	moves    *logline.Line // of BARs, to addresses where no doorbell is possible
	function *pci.Function

	// vectors holds the MSI-X vector of each queue and, last, of the configuration.
	// They are here and not in the registers because an interrupt must not wait for a
	// lock that is held while a device starts.
	vectors []atomic.Uint32

	intx sync.Mutex // guards isr against the pin
	isr  uint32
}

// NewPCI returns dev behind the PCI transport, with a 24-bit class code. Attach puts
// it on a bus. The caller closes it, paused or never started.
func NewPCI(dev Device, class uint32, cfg Config) (*PCI, error) {
	c, err := newCore(dev, cfg)
	if err != nil {
		return nil, err
	}
	t := &PCI{core: c, class: class, moves: logline.New(c.cfg.Log, logPause), vectors: make([]atomic.Uint32, len(c.kicks)+1)}
	c.barred = true // until BusMaster says otherwise
	c.notify, c.cleared = t.interrupt, t.clearInterrupts
	t.clearInterrupts(configChange)
	return t, nil
}

// Vectors returns how many MSI-X vectors suit the device: one per queue, and one for
// the configuration.
func (t *PCI) Vectors() int { return len(t.vectors) }

// Attach puts the device on a bus and gives it its MSI-X vectors.
func (t *PCI) Attach(b *pci.Bus, vectors []pci.Vector) error {
	f, err := b.Add(t, vectors)
	t.function = f
	return err
}

// Ident implements pci.Device, §4.1.2.1.
func (t *PCI) Ident() pci.Ident {
	const redHat, firstModern, modern = 0x1af4, 0x1040, 1
	id := firstModern + uint16(t.dev.ID())
	return pci.Ident{Vendor: redHat, Device: id, Class: t.class, Revision: modern, Subvendor: redHat, Subdevice: id}
}

// BARs implements pci.Device.
func (t *PCI) BARs() []pci.BAR {
	return []pci.BAR{
		pciBAR:  {Size: pciSize, Device: pciWindow{t}, Is64: true, Prefetchable: true},
		portBAR: {Size: portSize, Device: pciPort{t}, Ports: true},
	}
}

// A space is what a BAR maps.
type space interface {
	bus.Device
	write(off uint64, p []byte) <-chan struct{} // Write without its wait
}

// space returns the space behind a BAR, and its size. The MSI-X BAR is not included:
// a driver that needs the access capability has no MSI-X.
func (t *PCI) space(bar byte) (space, uint32) {
	switch bar {
	case pciBAR:
		return pciWindow{t}, pciSize
	case portBAR:
		return pciPort{t}, portSize
	}
	return nil, 0
}

// pciPort is the port BAR of a PCI device.
type pciPort struct{ *PCI }

// Read implements bus.Device: there is nothing to read.
func (pciPort) Read(_ uint64, p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}

// Write implements bus.Device. It takes what a doorbell would have taken.
func (t pciPort) Write(off uint64, p []byte) { t.write(off, p) }

func (t pciPort) write(off uint64, p []byte) <-chan struct{} {
	if off == 0 && len(p) == portWidth {
		t.kick(uint32(le.Uint16(p)))
	}
	return nil
}

// Configuration structure types, §4.1.4.
const (
	capCommon = 1
	capNotify = 2
	capISR    = 3
	capDevice = 4
	capPCI    = 5
)

// Capabilities implements pci.Device, §4.1.4. A driver takes the first of a type that
// it can use: the ports, unless it or its machine has none.
func (t *PCI) Capabilities() []pci.Capability {
	const vendor = pci.VendorSpecific
	ports := structure(capNotify, portBAR, 0, portSize, 4)
	memory := structure(capNotify, pciBAR, pciNotify, notifyMultiplier*uint32(len(t.kicks)), 4)
	return []pci.Capability{
		{ID: vendor, Body: structure(capCommon, pciBAR, pciCommon, commonSize, 0)},
		{ID: vendor, Body: le.AppendUint32(ports, portMultiplier)},
		{ID: vendor, Body: le.AppendUint32(memory, notifyMultiplier)},
		{ID: vendor, Body: structure(capISR, pciBAR, pciISR, 1, 0)},
		{ID: vendor, Body: structure(capDevice, pciBAR, pciConfig, pciStructure, 0)},
		t.accessCapability(),
	}
}

// structure returns what follows ID and Next of a struct virtio_pci_cap. The caller
// appends more bytes to it.
func structure(kind, bar byte, offset, length uint32, more byte) []byte {
	const capSize = 16
	b := []byte{capSize + more, kind, bar, 0, 0, 0}
	b = le.AppendUint32(b, offset)
	return le.AppendUint32(b, length)
}

// accessCapability is the window to BARs in configuration space, §4.1.4.9.
func (t *PCI) accessCapability() pci.Capability {
	const bar, offset, length, data = 2, 6, 10, 14 // in the body
	c := pci.Capability{ID: pci.VendorSpecific, Body: append(structure(capPCI, pciBAR, 0, 0, 4), 0, 0, 0, 0), Live: data}
	c.Writable = make([]byte, len(c.Body))
	c.Writable[bar] = 0xff
	for i := offset; i < data; i++ {
		c.Writable[i] = 0xff
	}
	access := func(body []byte, do func(s space, off uint64, p []byte)) {
		n, off := le.Uint32(body[length:]), le.Uint32(body[offset:])
		s, size := t.space(body[bar])
		if s == nil || n != 1 && n != 2 && n != 4 || off%n != 0 || off > size-n {
			return
		}
		do(s, uint64(off), body[data:data+n])
	}
	c.Refresh = func(body []byte) { access(body, space.Read) }
	c.Commit = func(body []byte) { access(body, func(s space, off uint64, p []byte) { s.write(off, p) }) }
	return c
}

// Moved implements pci.Device. The doorbells follow each BAR. Where they cannot,
// notifications arrive as exits.
func (t *PCI) Moved(bar int, addr uint64, on bool) {
	bells := t.cfg.Doorbells
	if bells == nil {
		return
	}
	var errs []error
	for i, kick := range t.kicks {
		bell := Bell{Addr: addr + pciNotify + notifyMultiplier*uint64(i)}
		if bar == portBAR {
			bell = Bell{Addr: addr, Port: true, Len: portWidth, Value: uint32(i)}
		}
		if on {
			errs = append(errs, bells.Assign(kick, bell))
		} else {
			errs = append(errs, bells.Deassign(kick, bell))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.moves.Debug("virtio: doorbells", "device", t.dev.ID(), "err", err)
	}
}

// BusMaster implements pci.Device.
func (t *PCI) BusMaster(on bool) { t.bar(!on) }

// interrupt is core.notify: it uses MSI-X if the driver enabled it, else ISR and pin,
// §4.1.5.1.3 and §2.3.
func (t *PCI) interrupt(queue int) {
	if msix := t.function.MSIX(); msix.Enabled() {
		i := queue
		if queue == configChange {
			i = len(t.kicks)
		}
		if v := t.vectors[i].Load(); v != noVector {
			msix.Signal(uint16(v))
		}
		return
	}
	t.intx.Lock()
	defer t.intx.Unlock()
	if queue == configChange {
		t.isr |= isrConfig
	} else {
		t.isr |= isrQueue
	}
	t.function.INTx().Set(true)
}

// readISR reads and clears the interrupt status, and lowers the pin, §4.1.4.5.
func (t *PCI) readISR() byte {
	t.intx.Lock()
	defer t.intx.Unlock()
	v := t.isr
	t.isr = 0
	t.function.INTx().Set(false)
	return byte(v)
}

// clearInterrupts is core.cleared.
func (t *PCI) clearInterrupts(queue int) {
	if queue != configChange {
		t.vectors[queue].Store(noVector)
		return
	}
	for i := range t.vectors {
		t.vectors[i].Store(noVector)
	}
	if t.function != nil {
		t.readISR()
	}
}

// vector handles the driver's write of an MSI-X vector, §4.1.5.1.2.1. A vector that
// does not exist reads back as NO_VECTOR.
func (t *PCI) vector(i int, v uint16) {
	if int(v) >= t.function.MSIX().Vectors() {
		v = noVector
	}
	t.vectors[i].Store(uint32(v))
}

// pciState is a PCI's snapshot. The bus's snapshot holds what the bus knows of the
// device.
type pciState struct {
	Core    json.RawMessage
	Vectors []uint16
	ISR     uint32 `json:",omitempty"`
}

// Save returns the state of a paused device.
func (t *PCI) Save() ([]byte, error) {
	var s pciState
	var err error
	if s.Core, err = t.save(); err != nil {
		return nil, err
	}
	for i := range t.vectors {
		s.Vectors = append(s.Vectors, uint16(t.vectors[i].Load()))
	}
	t.intx.Lock()
	defer t.intx.Unlock()
	s.ISR = t.isr
	return json.Marshal(s)
}

// Load sets the state of a device that was never started; Resume starts it.
func (t *PCI) Load(b []byte) error {
	var s pciState
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if len(s.Vectors) != len(t.vectors) {
		return errors.New("virtio: the state is of a device with other queues")
	}
	if err := t.load(s.Core); err != nil {
		return err
	}
	for i, v := range s.Vectors {
		t.vector(i, v)
	}
	t.intx.Lock()
	defer t.intx.Unlock()
	t.isr = s.ISR & (isrQueue | isrConfig)
	return nil
}

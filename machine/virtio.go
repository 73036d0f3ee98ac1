package machine

import (
	"errors"
	"fmt"
	"time"

	"vmm/boot/acpi"
	"vmm/bus"
	"vmm/devices/pc"
	"vmm/devices/pci"
	"vmm/devices/virtio"
	"vmm/eventfd"
	"vmm/kvm"
)

// Transport is how the guest finds its virtio devices.
type Transport string

const (
	// PCI is the default.
	PCI Transport = "pci"
	// MMIO lists the devices in the ACPI tables.
	MMIO Transport = "mmio"
	// MMIOCmdline lists them on the kernel's command line, for kernels with
	// CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES and no ACPI.
	MMIOCmdline Transport = "mmio-cmdline"
)

// transport is a virtio device behind its transport.
type transport interface {
	Release()
	Pause(limit time.Duration) error
	Resume()
	Close(limit time.Duration) error
	Stats() virtio.Stats
}

// Class codes of PCI devices, PCI Code and ID Assignment Specification §1.
const (
	classStorage = 0x018000 // mass storage, other
	classNetwork = 0x020000 // Ethernet
	classSerial  = 0x078000 // communication, other
	classOther   = 0x00ff00
	classBridge  = 0x060000
)

// drainLimit is how long the host may take to complete a device's requests when the
// machine is paused or ends.
const drainLimit = 30 * time.Second

// addVirtio puts a device behind the transport of the Config. The device and its
// backend belong to part p.
func (m *Machine) addVirtio(p *part, d virtio.Device, class uint32) error {
	cfg := virtio.Config{Mem: m.mem, Doorbells: doorbells{m.vm}, Log: m.log, Owner: m.panicked, Broken: m.broken}
	m.devices.queues += len(d.QueueSizes())
	if m.config.Transport != PCI && m.config.Transport != "" {
		return m.addMMIO(p, d, cfg)
	}
	var edges edges
	p.opened(edges.close) // the device signals the eventfds until it is closed
	t, err := virtio.NewPCI(d, class, cfg)
	if err != nil {
		return err
	}
	p.opened(func() error { return t.Close(forever) })
	m.devices.virtio = append(m.devices.virtio, t)
	vectors := make([]pci.Vector, t.Vectors())
	for i := range vectors {
		if vectors[i], err = m.newVector(&edges); err != nil {
			return err
		}
	}
	return t.Attach(m.devices.pci, vectors)
}

// addMMIO gives a device the next register window and interrupt.
func (m *Machine) addMMIO(p *part, d virtio.Device, cfg virtio.Config) error {
	i, gsis := len(m.devices.virtio), gsiMMIO
	if m.config.Transport == MMIOCmdline {
		gsis = gsis[:gsisOfPICs] // without ACPI there is no I/O APIC
	}
	if i == len(gsis) {
		return &ConfigError{"Transport", fmt.Sprintf("%s has interrupts for %d devices; use fewer, or pci", m.config.Transport, len(gsis))}
	}
	base := uint64(mmioBase + i*virtio.MMIOSize)
	t, err := m.newMMIO(p, d, base, gsis[i], cfg)
	if err != nil {
		return err
	}
	p.opened(func() error { return t.Close(forever) })
	m.devices.virtio = append(m.devices.virtio, t)
	return m.devices.memory.Map(base, virtio.MMIOSize, t)
}

// newMMIO returns a device with the interrupt of a GSI. ACPI declares it
// edge-triggered (virtioACPI); the command line does not say.
func (m *Machine) newMMIO(p *part, d virtio.Device, base uint64, gsi uint32, cfg virtio.Config) (*virtio.MMIO, error) {
	if m.config.Transport == MMIOCmdline {
		return virtio.NewMMIOLine(d, base, m.line(gsi), cfg)
	}
	var edges edges
	p.opened(edges.close)
	irq, err := m.newEdge(&edges, gsi)
	if err != nil {
		return nil, err
	}
	return virtio.NewMMIO(d, base, irq, cfg)
}

// addPCI creates the bus, if the transport needs one.
func (m *Machine) addPCI() {
	if m.config.Transport != PCI && m.config.Transport != "" {
		return
	}
	d := &m.devices
	var lines []bus.Line
	for gsi := uint32(gsiINTx); gsi < kvm.IOAPICPins; gsi++ {
		lines = append(lines, m.line(gsi))
	}
	const redHat, hostBridge = 0x1b36, 0x0008
	ident := pci.Ident{Vendor: redHat, Device: hostBridge, Class: classBridge, Subvendor: redHat, Subdevice: hostBridge}
	d.pci = pci.NewBus(&d.memory, &d.ports, ident, d.windows, lines)
}

// mapPCI maps the bus's configuration space, and the reset control register between
// its ports.
func (d *devices) mapPCI() error {
	if d.pci == nil {
		return d.ports.Map(portPCIConfig, pc.ResetControlSize, d.reset)
	}
	return errors.Join(
		d.ports.Map(portPCIConfig, pci.PortsSize, d.pci.Ports(d.reset)),
		d.memory.Map(ecamBase, pci.ECAMSize, d.pci.ECAM()),
	)
}

// edge is an edge-triggered KVM interrupt: an eventfd that the kernel turns into an
// interrupt.
type edge struct {
	*eventfd.FD
	vm       *kvm.VM
	gsi      uint32
	assigned bool
}

// edges are the eventfds of a device.
type edges []*eventfd.FD

func (e *edges) add(m *Machine) (*eventfd.FD, error) {
	fd, err := eventfd.New()
	if err == nil {
		*e = append(*e, fd)
		m.devices.edges++
	}
	return fd, err
}

func (e *edges) close() error {
	var errs []error
	for _, fd := range *e {
		errs = append(errs, fd.Close())
	}
	return errors.Join(errs...)
}

// newEdge returns the interrupt of a GSI that already has a route.
func (m *Machine) newEdge(of *edges, gsi uint32) (*edge, error) {
	fd, err := of.add(m)
	if err != nil {
		return nil, err
	}
	e := &edge{FD: fd, vm: m.vm, gsi: gsi}
	return e, e.assign()
}

func (e *edge) assign() error {
	if e.assigned {
		return nil
	}
	err := e.vm.AssignIRQFD(e.Fd(), e.gsi)
	e.assigned = err == nil
	return err
}

// vector is one MSI-X vector: an edge of a GSI that is routed to a message.
type vector struct{ edge }

// newVector returns a vector without a message.
func (m *Machine) newVector(of *edges) (pci.Vector, error) {
	gsi := uint32(kvm.IOAPICPins + m.devices.edges)
	fd, err := of.add(m)
	if err != nil {
		return nil, err
	}
	return &vector{edge{FD: fd, vm: m.vm, gsi: gsi}}, nil
}

// Route implements pci.Vector.
func (v *vector) Route(addr uint64, data uint32) error {
	if err := v.vm.RouteMSIs(map[uint32]kvm.MSI{v.gsi: {Addr: addr, Data: data}}); err != nil {
		return err
	}
	return v.assign()
}

// doorbells implements virtio.Doorbells with KVM's ioeventfd.
type doorbells struct{ vm *kvm.VM }

func (d doorbells) Assign(e *eventfd.FD, b virtio.Bell) error {
	return d.vm.AssignIOEventFD(e.Fd(), event(b))
}

func (d doorbells) Deassign(e *eventfd.FD, b virtio.Bell) error {
	return d.vm.DeassignIOEventFD(e.Fd(), event(b))
}

func event(b virtio.Bell) kvm.IOEvent {
	return kvm.IOEvent{Addr: b.Addr, Port: b.Port, Len: uint32(b.Len), Match: b.Len != 0, Data: uint64(b.Value)}
}

// virtioACPI describes the devices, or their bus.
func (m *Machine) virtioACPI(c *acpi.Config) {
	d := &m.devices
	if d.pci != nil {
		root := acpi.PCIRoot{ECAM: ecamBase, GSIs: []uint32{}}
		for gsi := uint32(gsiINTx); gsi < kvm.IOAPICPins; gsi++ {
			root.GSIs = append(root.GSIs, gsi)
		}
		for _, w := range d.windows {
			one := acpi.Window{First: w.Base, Last: w.End - 1}
			if w.Ports {
				root.Ports = one
			} else {
				root.Windows = append(root.Windows, one)
			}
		}
		root.Describe(c)
		return
	}
	if m.config.Transport == MMIO {
		for i := range d.virtio {
			c.Devices = append(c.Devices, acpi.VirtioMMIO(i, uint32(mmioBase+i*virtio.MMIOSize), virtio.MMIOSize, gsiMMIO[i]))
		}
	}
}

// virtioCmdline returns the words for the devices on the kernel's command line. Words
// that are not needed to find the devices are left out if the user gave a command
// line.
func (m *Machine) virtioCmdline() (words []string) {
	if m.devices.pci == nil && m.config.Cmdline == "" {
		words = append(words, "pci=off") // or Linux complains that it finds no PCI
	}
	if m.config.Transport != MMIOCmdline {
		return words
	}
	for i := range m.devices.virtio {
		words = append(words, fmt.Sprintf("virtio_mmio.device=%#x@%#x:%d", virtio.MMIOSize, mmioBase+i*virtio.MMIOSize, gsiMMIO[i]))
	}
	return words
}

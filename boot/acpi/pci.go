package acpi

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// PCIRoot is a host bridge with one bus, number 0, whose configuration space is at
// ports 0xcf8 to 0xcff and in memory.
type PCIRoot struct {
	ECAM    uint64   // ECAM of the bus, 1 MiB
	Windows []Window // where memory BARs may be
	Ports   Window   // where port BARs may be; zero: nowhere
	// GSIs are the level-triggered I/O APIC inputs of the INTA pins: device n uses
	// entry n modulo their number.
	GSIs []uint32
}

// Window is a range of addresses or ports, both ends included.
type Window struct{ First, Last uint64 }

const (
	pciSlots = 32
	ecamSize = 1 << 20 // for one bus
)

// Describe adds the bridge to c: to the DSDT, and as an MCFG table. The ECAM is
// reserved as a motherboard resource; otherwise Linux does not use it.
func (r PCIRoot) Describe(c *Config) {
	c.Tables = append(c.Tables, r.mcfg())
	c.Reserved = append(c.Reserved, Memory32Fixed(uint32(r.ECAM), ecamSize))
	resources := []Resource{WordBusNumber(0, 0), IO(0xcf8, 8)}
	if r.Ports.Last != 0 {
		resources = append(resources, WordIO(uint16(r.Ports.First), uint16(r.Ports.Last)))
	}
	for _, w := range r.Windows {
		if w.Last < 1<<32 {
			resources = append(resources, DWordMemory(uint32(w.First), uint32(w.Last)))
		} else {
			resources = append(resources, QWordMemory(w.First, w.Last))
		}
	}
	c.Devices = append(c.Devices, Device("PCI0",
		Name("_HID", EISAID("PNP0A08")), // PCI Express
		Name("_CID", EISAID("PNP0A03")), // PCI
		Name("_UID", Int(0)),
		Name("_SEG", Int(0)),
		Name("_BBN", Int(0)),
		Name("_CRS", ResourceTemplate(resources...)),
		Name("_PRT", r.routing())))
}

// routing is the _PRT (§6.2.13): a package of address, pin, source, and GSI for each
// slot except the bridge's.
func (r PCIRoot) routing() Term {
	const anyFunction, pinA, hardwired = 0xffff, 0, 0
	var rows []Term
	for slot := 1; slot < pciSlots && len(r.GSIs) > 0; slot++ {
		gsi := r.GSIs[slot%len(r.GSIs)]
		rows = append(rows, Package(Int(uint64(slot)<<16|anyFunction), Int(pinA), Int(hardwired), Int(uint64(gsi))))
	}
	return Package(rows...)
}

// mcfg is the table that describes memory-mapped configuration space (PCI Firmware
// Specification 3.3, §4.1.2).
func (r PCIRoot) mcfg() []byte {
	b := make([]byte, 8) // reserved
	b = binary.LittleEndian.AppendUint64(b, r.ECAM)
	const segment, firstBus, lastBus = 0, 0, 0
	return Table("MCFG", 1, slices.Concat(b, []byte{segment, 0, firstBus, lastBus, 0, 0, 0, 0}))
}

// VirtioMMIO is device number n of the virtio-mmio transport: registers of size bytes
// at base, and an edge-triggered interrupt on gsi.
func VirtioMMIO(n int, base, size, gsi uint32) Term {
	return Device(fmt.Sprintf("VR%02X", n),
		Name("_HID", String("LNRO0005")),
		Name("_UID", Int(uint64(n))),
		Name("_CRS", ResourceTemplate(Memory32Fixed(base, size), Interrupt(Edge|ActiveHigh, gsi))))
}

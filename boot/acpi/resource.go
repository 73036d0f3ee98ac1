package acpi

import "encoding/binary"

// A Resource is one entry of a ResourceTemplate (ACPI 6.5 §6.4).
type Resource []byte

// ResourceTemplate is the value of a _CRS: what a device occupies, or what a bridge
// forwards.
func ResourceTemplate(resources ...Resource) Term {
	var b []byte
	for _, r := range resources {
		b = append(b, r...)
	}
	const endTag, noChecksum = 0x79, 0
	return Buffer(append(b, endTag, noChecksum))
}

// IO is n ports from base.
func IO(base uint16, n uint8) Resource {
	const decode16, align = 1, 1
	r := Resource{0x47, decode16}
	r = binary.LittleEndian.AppendUint16(r, base) // minimum
	r = binary.LittleEndian.AppendUint16(r, base) // maximum
	return append(r, align, n)
}

// Memory32Fixed is n bytes of registers at base.
func Memory32Fixed(base, n uint32) Resource {
	const readWrite = 1
	r := Resource{0x86, 9, 0, readWrite}
	r = binary.LittleEndian.AppendUint32(r, base)
	return binary.LittleEndian.AppendUint32(r, n)
}

// Mode is how an interrupt is signalled: Edge or Level, ActiveHigh or ActiveLow, and
// optionally Shared, ORed together.
type Mode byte

const (
	Level      Mode = 0
	Edge       Mode = 1 << 1
	ActiveHigh Mode = 0
	ActiveLow  Mode = 1 << 2
	Shared     Mode = 1 << 3
)

// Interrupt is the extended interrupt descriptor: global system interrupts that all
// have the same mode. Unlike the short IRQ descriptor it means an input of the I/O
// APIC, not a line of an 8259, which a hardware-reduced machine does not have.
func Interrupt(mode Mode, gsi ...uint32) Resource {
	const consumer = 1
	if len(gsi) == 0 || len(gsi) > 255 {
		bug("a descriptor of %d interrupts", len(gsi))
	}
	r := Resource{0x89}
	r = binary.LittleEndian.AppendUint16(r, uint16(2+4*len(gsi)))
	r = append(r, byte(mode)|consumer, byte(len(gsi)))
	for _, n := range gsi {
		r = binary.LittleEndian.AppendUint32(r, n)
	}
	return r
}

// Address space descriptors (§6.4.3.5) of the kind that a bridge needs: a fixed window
// [min, max] that it forwards to the devices behind it.
const (
	spaceMemory = 0
	spaceIO     = 1
	spaceBus    = 2

	memoryReadWrite = 1 // not cacheable, and the same address on both sides
	ioEntireRange   = 3 // no ISA aliases are left out
)

// WordBusNumber is a range of PCI buses.
func WordBusNumber(min, max uint16) Resource {
	return window(2, spaceBus, 0, uint64(min), uint64(max))
}

// WordIO is a window of ports.
func WordIO(min, max uint16) Resource {
	return window(2, spaceIO, ioEntireRange, uint64(min), uint64(max))
}

// DWordMemory is a window of memory below 4 GiB.
func DWordMemory(min, max uint32) Resource {
	return window(4, spaceMemory, memoryReadWrite, uint64(min), uint64(max))
}

// QWordMemory is a window of memory anywhere.
func QWordMemory(min, max uint64) Resource {
	return window(8, spaceMemory, memoryReadWrite, min, max)
}

// window returns the descriptor, whose five numbers are width bytes each.
func window(width, space, flags byte, min, max uint64) Resource {
	const minFixed, maxFixed = 1 << 2, 1 << 3
	if min > max {
		bug("a window from %#x to %#x", min, max)
	}
	tag := map[byte]byte{2: 0x88, 4: 0x87, 8: 0x8a}[width]
	r := Resource{tag, 3 + 5*width, 0, space, minFixed | maxFixed, flags}
	const granularity, translation = 0, 0
	for _, v := range []uint64{granularity, min, max, translation, max - min + 1} {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		r = append(r, b[:width]...)
	}
	return r
}

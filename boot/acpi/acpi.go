// Package acpi builds the tables by which a guest finds its hardware: an encoder for
// the ACPI Machine Language, and our machine's tables. The machine is hardware-reduced
// (§4.1): it has no ACPI fixed hardware, so the guest looks for none. The
// specification is ACPI 6.5, https://uefi.org/specs/ACPI/6.5; see docs/acpi.md for an
// overview.
package acpi

import (
	"fmt"
	"slices"
)

// Config is the hardware to describe. A port or a GSI of zero means that the device is
// absent. GSIs are inputs of the only I/O APIC.
type Config struct {
	// APICIDs holds the local APIC ID of each CPU; its index is the CPU's _UID.
	APICIDs []uint32
	COM1    Serial
	// RTC is an MC146818 at ports 0x70 and 0x71, without an interrupt.
	RTC bool
	// Century is the RTC register that holds the century, 0 if none.
	Century uint8
	// I8042 is a keyboard controller at ports 0x60 and 0x64 with interrupt 1. If a
	// controller can only reset the machine, leave it out.
	I8042 bool
	Power Power
	// PVPanic is the port on which a guest reports that it has crashed.
	PVPanic uint16

	Reserved []Resource // ranges that no other device claims, such as ECAM
	Events   []Event    // see Event
	Devices  []Term     // devices to add to \_SB
	Tables   [][]byte   // tables to add, made by Table
}

// Serial is a 16550A: eight ports and an edge-triggered interrupt.
type Serial struct {
	Port uint16
	GSI  uint32
}

// Power is the one-byte ports that end the machine, and its power button.
type Power struct {
	// ResetPort resets the machine when ResetValue is written to it.
	ResetPort  uint16
	ResetValue uint8
	// SleepControl and SleepStatus are the registers of §4.8.3.7, both or none.
	// Writing PowerOff to SleepControl ends the machine. Neither needs to be
	// readable: nothing wakes up from S5.
	SleepControl, SleepStatus uint16
	// ButtonGSI is the interrupt of the button: an edge is a press.
	ButtonGSI uint32
}

// sleepS5 is the SLP_TYP of soft-off. It is our choice; \_S5 reports it to the guest.
const sleepS5 = 5

// PowerOff is what a guest writes to SleepControl to power off: SLP_TYP in bits
// 2 to 4 and SLP_EN in bit 5.
const PowerOff = sleepS5<<2 | 1<<5

// ResetVector is where a PC's processor starts in real mode, at the end of the BIOS
// area. A kernel may jump to it to reset the machine.
const ResetVector = 0xffff0

// ResetCode is the code to put at ResetVector: it does the same as writing to
// ResetPort. Linux does not use the RESET_REG of a hardware-reduced machine: it
// expects EFI there, finds none, and jumps to the BIOS. Without a reset port it is
// nil.
func (p Power) ResetCode() []byte {
	if p.ResetPort == 0 {
		return nil
	}
	return []byte{
		0xba, byte(p.ResetPort), byte(p.ResetPort >> 8), // mov dx, ResetPort
		0xb0, p.ResetValue, // mov al, ResetValue
		0xee,       // out dx, al
		0xf4,       // stop: hlt
		0xeb, 0xfd, // jmp stop
	}
}

// An Event is an edge on GSI, on which the guest runs Do: usually a Notify to a device
// of Config.Devices.
type Event struct {
	GSI uint32
	Do  []Term
}

// Build returns the tables of the machine, to be put at guest physical address base;
// they begin with the RSDP. It fails if they do not fit in size bytes or would reach
// ResetVector. Loaders pass base to the kernel; for a kernel that searches instead,
// base is in the BIOS area and a multiple of 16. The guest's memory map must not mark
// these pages as usable.
func Build(base, size uint64, c Config) ([]byte, error) {
	const searchFrom, searchStep = 0xe0000, 16
	if base < searchFrom || base >= ResetVector || base%searchStep != 0 {
		return nil, fmt.Errorf("acpi: tables at %#x, where no kernel searches for them", base)
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	b := &builder{base: base, out: make([]byte, rsdpSize)}
	dsdt := b.add(dsdt(c))
	tables := []uint64{b.add(fadt(c, dsdt)), b.add(madt(c.APICIDs))}
	if c.COM1.Port != 0 {
		tables = append(tables, b.add(spcr(c.COM1)))
	}
	for _, t := range c.Tables {
		tables = append(tables, b.add(t))
	}
	copy(b.out, rsdp(b.add(xsdt(tables))))
	room := min(size, ResetVector-base)
	if n := uint64(len(b.out)); n > room {
		return nil, fmt.Errorf("acpi: %d CPUs and %d devices need tables of %d bytes, and there is room for %d", len(c.APICIDs), len(c.Devices), n, room)
	}
	return b.out, nil
}

func (c *Config) validate() error {
	if n := len(c.APICIDs); n == 0 || n > maxCPUs {
		return fmt.Errorf("acpi: %d CPUs, want 1 to %d", n, maxCPUs)
	}
	ids := slices.Sorted(slices.Values(c.APICIDs))
	for i, id := range ids[1:] {
		if id == ids[i] {
			return fmt.Errorf("acpi: two CPUs with APIC id %d", id)
		}
	}
	if (c.Power.SleepControl == 0) != (c.Power.SleepStatus == 0) {
		return fmt.Errorf("acpi: one of the sleep registers alone, at %#x and %#x, powers nothing off", c.Power.SleepControl, c.Power.SleepStatus)
	}
	for _, t := range c.Tables {
		if len(t) < headerSize {
			return fmt.Errorf("acpi: a table of %d bytes", len(t))
		}
	}
	return nil
}

// A builder lays out tables one after another.
type builder struct {
	base uint64
	out  []byte
}

// add appends a table and returns its address.
func (b *builder) add(table []byte) uint64 {
	const align = 64
	b.out = append(b.out, make([]byte, -len(b.out)&(align-1))...)
	addr := b.base + uint64(len(b.out))
	b.out = append(b.out, table...)
	return addr
}

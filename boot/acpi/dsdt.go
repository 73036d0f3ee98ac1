package acpi

import (
	"fmt"
	"slices"
)

// maxCPUs is the limit of three hexadecimal digits in the CPUs' names.
const maxCPUs = 1 << 12

// dsdt is the Differentiated System Description Table (§5.2.11.1): the devices of the
// namespace.
func dsdt(c Config) []byte {
	const integersOf64Bits = 2 // the table's revision
	devices := slices.Concat(cpus(len(c.APICIDs)), legacy(c), c.Devices, power(c))
	body := Scope(`\_SB`, devices...)
	if c.Power.SleepControl != 0 {
		s5 := Name(`\_S5`, Package(Int(sleepS5), Int(0), Int(0), Int(0)))
		body = slices.Concat(body, s5)
	}
	return Table("DSDT", integersOf64Bits, body)
}

// cpus returns the processor devices (§8.4): Linux matches _UID with the MADT.
func cpus(n int) (devices []Term) {
	for uid := range n {
		devices = append(devices, Device(fmt.Sprintf("C%03X", uid),
			Name("_HID", String("ACPI0007")),
			Name("_UID", Int(uint64(uid)))))
	}
	return devices
}

// legacy returns the devices that a PC has at fixed ports. Without an entry here the
// kernel would print on COM1, but its driver would get no interrupt.
func legacy(c Config) (devices []Term) {
	if c.COM1.Port != 0 {
		devices = append(devices, Device("COM1",
			Name("_HID", EISAID("PNP0501")), // 16550A
			Name("_UID", Int(1)),
			Name("_CRS", ResourceTemplate(
				IO(c.COM1.Port, 8),
				Interrupt(Edge|ActiveHigh, c.COM1.GSI)))))
	}
	if c.RTC {
		// Without an interrupt Linux has a clock but no alarm.
		devices = append(devices, Device("RTC",
			Name("_HID", EISAID("PNP0B00")),
			Name("_CRS", ResourceTemplate(IO(0x70, 2)))))
	}
	if c.I8042 {
		devices = append(devices, Device("KBD",
			Name("_HID", EISAID("PNP0303")),
			Name("_CRS", ResourceTemplate(
				IO(0x60, 1),
				IO(0x64, 1),
				Interrupt(Edge|ActiveHigh, 1)))))
	}
	if c.PVPanic != 0 {
		devices = append(devices, Device("PEVT",
			Name("_HID", String("QEMU0001")),
			Name("_CRS", ResourceTemplate(IO(c.PVPanic, 1)))))
	}
	return devices
}

// power returns the reserved resources (PNP0C02), which include the registers of
// Config.Power because these belong to no device; the power button; and the device
// that delivers its presses and Config.Events.
func power(c Config) (devices []Term) {
	reserved := slices.Clone(c.Reserved)
	for _, p := range slices.Compact([]uint16{c.Power.ResetPort, c.Power.SleepControl, c.Power.SleepStatus}) {
		if p != 0 {
			reserved = append(reserved, IO(p, 1))
		}
	}
	if len(reserved) > 0 {
		devices = append(devices, Device("RES",
			Name("_HID", EISAID("PNP0C02")),
			Name("_CRS", ResourceTemplate(reserved...))))
	}
	events := slices.Clone(c.Events)
	if c.Power.ButtonGSI != 0 {
		devices = append(devices, Device("PWRB", Name("_HID", EISAID("PNP0C0C"))))
		const pressed = 0x80
		events = append(events, Event{c.Power.ButtonGSI, []Term{Notify(`\_SB.PWRB`, pressed)}})
	}
	if len(events) > 0 {
		devices = append(devices, eventDevice(events))
	}
	return devices
}

// eventDevice is the Generic Event Device (§5.6.9), which replaces the SCI: its driver
// runs _EVT with the GSI of each interrupt.
func eventDevice(events []Event) Term {
	var interrupts []Resource
	var handler []Term
	for _, e := range events {
		interrupts = append(interrupts, Interrupt(Edge|ActiveHigh, e.GSI))
		handler = append(handler, If(Equal(Arg(0), Int(uint64(e.GSI))), e.Do...))
	}
	return Device("GED",
		Name("_HID", String("ACPI0013")),
		Name("_CRS", ResourceTemplate(interrupts...)),
		Method("_EVT", 1, handler...))
}

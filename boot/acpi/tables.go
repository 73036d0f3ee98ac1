package acpi

import "encoding/binary"

const (
	headerSize = 36
	rsdpSize   = 36
	fadtSize   = 276

	// Where KVM puts the interrupt controllers.
	localAPICAddr = 0xfee00000
	ioAPICAddr    = 0xfec00000
)

// Table returns a system description table (§5.2.6): the header with its checksum, and
// the parts of the body.
func Table(signature string, revision uint8, body ...[]byte) []byte {
	if len(signature) != 4 {
		bug("%q is not a table's signature", signature)
	}
	t := make([]byte, headerSize)
	copy(t, signature)
	t[8] = revision
	copy(t[10:], "VMM   ")   // OEMID
	copy(t[16:], "VMMTABLE") // OEM Table ID
	t[24] = 1                // OEM Revision
	copy(t[28:], "VMM ")     // Creator ID
	t[32] = 1                // Creator Revision
	for _, b := range body {
		t = append(t, b...)
	}
	binary.LittleEndian.PutUint32(t[4:], uint32(len(t)))
	t[9] = checksum(t)
	return t
}

// checksum is the value for the checksum byte, now 0, that makes the sum of all bytes
// 0.
func checksum(b []byte) (sum uint8) {
	for _, v := range b {
		sum -= v
	}
	return sum
}

// rsdp is the Root System Description Pointer (§5.2.5.3), revision 2, without an RSDT.
func rsdp(xsdt uint64) []byte {
	const checksumOff, extendedOff, firstPart = 8, 32, 20
	p := make([]byte, rsdpSize)
	copy(p, "RSD PTR ")
	copy(p[9:], "VMM   ")
	p[15] = 2
	binary.LittleEndian.PutUint32(p[20:], rsdpSize)
	binary.LittleEndian.PutUint64(p[24:], xsdt)
	p[checksumOff] = checksum(p[:firstPart])
	p[extendedOff] = checksum(p)
	return p
}

// xsdt lists the tables (§5.2.8).
func xsdt(tables []uint64) []byte {
	var b []byte
	for _, addr := range tables {
		b = binary.LittleEndian.AppendUint64(b, addr)
	}
	return Table("XSDT", 1, b)
}

// Flags of the FADT (§5.2.9, table 5.10). The button and RTC flags, when set, say that
// these are not fixed hardware.
const (
	fadtWBINVD     = 1 << 0 // WBINVD works
	fadtProcC1     = 1 << 2 // HLT works
	fadtPwrButton  = 1 << 4 // a device in the namespace
	fadtSlpButton  = 1 << 5 // none
	fadtFixRTC     = 1 << 6 // its alarm wakes nothing
	fadtResetReg   = 1 << 10
	fadtHeadless   = 1 << 12
	fadtHWReduced  = 1 << 20
	fadtFixedFlags = fadtWBINVD | fadtProcC1 | fadtPwrButton | fadtSlpButton | fadtFixRTC | fadtHeadless | fadtHWReduced
)

// Flags of IAPC_BOOT_ARCH (§5.2.9.3). LEGACY_DEVICES stays clear because all devices
// are in the namespace. Bit 3 would say that MSI does not work.
const (
	boot8042      = 1 << 1
	bootNoVGA     = 1 << 2
	bootNoCMOSRTC = 1 << 5
)

// fadt is the Fixed ACPI Description Table (§5.2.9). The fixed hardware blocks stay
// zero, as hardware-reduced ACPI requires.
func fadt(c Config, dsdt uint64) []byte {
	flags, arch := uint32(fadtFixedFlags), uint16(bootNoVGA)
	if c.Power.ResetPort != 0 {
		flags |= fadtResetReg
	}
	if c.I8042 {
		arch |= boot8042
	}
	if !c.RTC {
		arch |= bootNoCMOSRTC
	}
	const minor = 5
	t := make([]byte, fadtSize)
	le := binary.LittleEndian
	le.PutUint32(t[40:], uint32(dsdt)) // DSDT
	t[108] = c.Century                 // CENTURY
	le.PutUint16(t[109:], arch)        // IAPC_BOOT_ARCH
	le.PutUint32(t[112:], flags)       // Flags
	copy(t[116:], port(c.Power.ResetPort))
	t[128] = c.Power.ResetValue // RESET_VALUE
	t[131] = minor              // FADT Minor Version
	le.PutUint64(t[140:], dsdt) // X_DSDT
	copy(t[244:], port(c.Power.SleepControl))
	copy(t[256:], port(c.Power.SleepStatus))
	return Table("FACP", 6, t[headerSize:])
}

// port is a one-byte port as a Generic Address Structure (§5.2.3.2), all zeros for
// none.
func port(n uint16) []byte {
	gas := make([]byte, 12)
	if n != 0 {
		const systemIO, bits, byteAccess = 1, 8, 1
		copy(gas, []byte{systemIO, bits, 0, byteAccess})
		binary.LittleEndian.PutUint64(gas[4:], uint64(n))
	}
	return gas
}

// spcr is the Serial Port Console Redirection table, revision 2 (Microsoft's
// specification of that name): the console that Linux uses for a plain `earlycon`, and
// that other systems look for.
func spcr(s Serial) []byte {
	const (
		size       = 80
		uart16550  = 0      // Interface Type
		ioAPIC     = 1 << 1 // Interrupt Type: GSI
		baud115200 = 7
		oneStopBit = 1
		vt100Plus  = 1 // Terminal Type
		noPCI      = 0xffff
	)
	t := make([]byte, size)
	le := binary.LittleEndian
	t[36] = uart16550
	copy(t[40:], port(s.Port)) // Base Address
	t[52] = ioAPIC
	le.PutUint32(t[54:], s.GSI) // Global System Interrupt
	t[58] = baud115200
	t[60] = oneStopBit
	t[62] = vt100Plus
	le.PutUint16(t[64:], noPCI) // PCI Device ID
	le.PutUint16(t[66:], noPCI) // PCI Vendor ID
	return Table("SPCR", 2, t[headerSize:])
}

// madt is the Multiple APIC Description Table (§5.2.12). It needs no interrupt source
// overrides: there is no 8259 (PCAT_COMPAT is clear), so there are no ISA interrupts
// with other wiring, only GSIs.
func madt(apicIDs []uint32) []byte {
	const flags, ioAPICID, gsiBase = 0, 0, 0
	le := binary.LittleEndian
	b := le.AppendUint32(nil, localAPICAddr)
	b = le.AppendUint32(b, flags)
	x2apic := false
	for uid, id := range apicIDs {
		if uid < 255 && id < 255 {
			b = append(b, localAPIC(uint8(uid), uint8(id))...)
		} else {
			x2apic = true
			b = append(b, localX2APIC(uint32(uid), id)...)
		}
	}
	b = append(b, 1, 12, ioAPICID, 0) // I/O APIC (§5.2.12.3)
	b = le.AppendUint32(b, ioAPICAddr)
	b = le.AppendUint32(b, gsiBase)
	// NMI on LINT1 of all CPUs (§5.2.12.7, §5.2.12.13).
	const all, lint1 = 0xff, 1
	b = append(b, 4, 6, all, 0, 0, lint1)
	if x2apic {
		b = append(b, 0x0a, 12, 0, 0, all, all, all, all, lint1, 0, 0, 0)
	}
	return Table("APIC", 5, b)
}

const apicEnabled = 1

// localAPIC is a Processor Local APIC structure (§5.2.12.2).
func localAPIC(uid, id uint8) []byte {
	return []byte{0, 8, uid, id, apicEnabled, 0, 0, 0}
}

// localX2APIC is a Processor Local x2APIC structure (§5.2.12.12), for values that do
// not fit in a byte (255 means all).
func localX2APIC(uid, id uint32) []byte {
	b := []byte{9, 16, 0, 0}
	b = binary.LittleEndian.AppendUint32(b, id)
	b = binary.LittleEndian.AppendUint32(b, apicEnabled)
	return binary.LittleEndian.AppendUint32(b, uid)
}

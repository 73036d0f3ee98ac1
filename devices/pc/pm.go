package pc

// Ports of PM by offset, for the FADT: SLEEP_CONTROL_REG, SLEEP_STATUS_REG
// (ACPI 6.5, §4.8.3.7) and RESET_REG (§4.8.3.6), one byte each.
const (
	PMSleepControl = 0
	PMSleepStatus  = 1
	PMReset        = 2
	PMSize         = 4
)

const (
	// PMResetValue is for the FADT's RESET_VALUE: writing it to PMReset resets.
	PMResetValue = 0x06
	// PMSleepS5 is the value in the DSDT's \_S5: soft off.
	PMSleepS5 = 5

	sleepEnable    = 1 << 5 // SLP_EN
	sleepTypeShift = 2      // SLP_TYP, bits 4-2
	sleepTypeMask  = 7
)

// PM is the power management of hardware-reduced ACPI: off and reset. It has no
// state. The guest never sleeps, so WAK_STS is never set.
type PM struct {
	PowerOff func()
	Reset    func()
}

// Read implements bus.Device.
func (*PM) Read(_ uint64, p []byte) { clear(p) }

// Write implements bus.Device.
func (m *PM) Write(off uint64, p []byte) {
	each(off, p, func(off uint64, b *byte) {
		switch {
		case off == PMSleepControl && *b&sleepEnable != 0 && *b>>sleepTypeShift&sleepTypeMask == PMSleepS5:
			m.PowerOff()
		case off == PMReset && *b == PMResetValue:
			m.Reset()
		}
	})
}

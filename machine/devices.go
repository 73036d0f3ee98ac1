package machine

import (
	"context"
	"errors"
	"time"

	"vmm/boot/acpi"
	"vmm/bus"
	"vmm/devices/pc"
	"vmm/devices/pci"
	"vmm/devices/serial"
	"vmm/devices/virtio/balloon"
	"vmm/devices/virtio/rng"
	"vmm/disk"
	"vmm/hostdir"
	"vmm/kvm"
	"vmm/logline"
	"vmm/task"
)

// devices is everything on the machine's two buses.
type devices struct {
	ports, memory bus.Bus
	com1          *serial.Device
	powerButton   *button
	reset         *pc.ResetControl

	pci      *pci.Bus     // nil for other transports
	windows  []pci.Window // of the bus
	virtio   []transport  // in the order in which the guest enumerates them
	queues   int          // total of all virtio devices
	images   []*disk.Image
	nics     []nic
	shares   []*hostdir.Dir
	balloon  *balloon.Device // nil: none
	screen   *screen         // shared by the serial port and a virtio console; nil: not shared
	consoles consoles
	edges    int // edge-triggered interrupts, each with its own GSI
}

// addDevices creates the fixed devices and maps each where layout.go says. The events
// they report end the machine.
func (m *Machine) addDevices() error {
	d := &m.devices
	in, out := m.serialConsole()
	d.com1 = serial.New(m.line(gsiCOM1), in, out)
	d.com1.Owner = m.panicked
	reset := func() { m.end(End{Reason: Reset}) }
	keyboard := pc.NewI8042(m.line(gsiKeyboard), reset)
	d.powerButton = &button{m.line(gsiPowerButton), keyboard}
	d.reset = &pc.ResetControl{Reset: reset}
	pm := &pc.PM{PowerOff: func() { m.end(End{Reason: PowerOff}) }, Reset: reset}
	panicked := func(e pc.PanicEvent) {
		if e&pc.Panicked != 0 {
			m.end(End{Reason: Panic})
		}
	}
	debugExit := func(code uint32) { m.end(End{Reason: DebugExit, Code: code}) }
	err := errors.Join(
		d.ports.Map(portCOM1, serial.Size, d.com1),
		d.ports.Map(portI8042, pc.I8042Size, keyboard),
		d.ports.Map(portCMOS, pc.CMOSSize, pc.NewCMOS(time.Now)),
		d.ports.Map(portPM, pc.PMSize, pm),
		d.ports.Map(portDebugExit, pc.DebugExitSize, &pc.DebugExit{Exit: debugExit}),
		d.ports.Map(pc.PanicPort, pc.PanicSize, &pc.Pvpanic{Event: panicked}),
	)
	if err != nil {
		return err
	}
	m.addPCI()
	return nil
}

func (m *Machine) addRNG() error {
	if m.config.NoRNG {
		return nil
	}
	d := rng.New(nil, 0)
	d.Owner, d.Log = m.panicked, m.log
	return m.addVirtio(m.newPart("random numbers"), d, classOther)
}

// writeACPI writes the ACPI tables, which describe the devices to the guest.
func (m *Machine) writeACPI() error {
	c := acpi.Config{
		COM1:    acpi.Serial{Port: portCOM1, GSI: gsiCOM1},
		RTC:     true,
		I8042:   true,
		Century: pc.RTCCentury,
		Power: acpi.Power{
			ResetPort: portPM + pc.PMReset, ResetValue: pc.PMResetValue,
			SleepControl: portPM + pc.PMSleepControl, SleepStatus: portPM + pc.PMSleepStatus,
			ButtonGSI: gsiPowerButton,
		},
		PVPanic: pc.PanicPort,
	}
	for id := range m.config.CPUs {
		c.APICIDs = append(c.APICIDs, uint32(id))
	}
	m.virtioACPI(&c)
	tables, err := acpi.Build(uint64(acpiBase), acpiSize, c)
	if err != nil {
		return err
	}
	return errors.Join(
		m.mem.Write(acpiBase, tables),
		// A kernel without EFI may reset as PCs always did: by a real-mode jump to
		// the firmware's reset vector.
		m.mem.Write(acpi.ResetVector, c.Power.ResetCode()),
	)
}

// start lets the devices move data to and from the host.
func (d *devices) start() { d.com1.Start() }

// release frees every vCPU that waits in a device, and pauses the serial port, which
// then takes no input from the host.
func (d *devices) release() {
	d.com1.Pause()
	for _, t := range d.virtio {
		t.Release()
	}
}

// pause stops the devices that work on their own; no vCPU may run.
func (d *devices) pause(owner task.Owner) error {
	errs := make([]error, len(d.virtio))
	calls := task.Group{Owner: owner}
	for i, t := range d.virtio {
		calls.Go(func() { errs[i] = t.Pause(drainLimit) })
	}
	calls.Wait()
	return errors.Join(errs...)
}

// resume undoes release and pause.
func (d *devices) resume() {
	d.com1.Resume()
	for _, t := range d.virtio {
		t.Resume()
	}
}

// stop ends the devices; no vCPU may run any more. Pending output for the host is
// delivered first, unless ctx is done before.
func (d *devices) stop(ctx context.Context) error {
	return errors.Join(d.com1.Close(ctx), d.consoles.stop(ctx))
}

// line is an input of the I/O APIC.
type line struct {
	vm  *kvm.VM
	gsi uint32
	log *logline.Line // rate-limited, because a guest sets the line at any rate
}

func (m *Machine) line(gsi uint32) *line {
	return &line{m.vm, gsi, logline.New(m.log, time.Minute)}
}

// Set implements bus.Line.
func (l *line) Set(high bool) {
	if err := l.vm.IRQLine(l.gsi, high); err != nil {
		l.log.Error("interrupt", "gsi", l.gsi, "err", err)
	}
}

// button is the power button: each press is one edge of its interrupt. A sleeping
// guest does not notice the interrupt, so the keyboard wakes it.
type button struct {
	line     bus.Line
	keyboard *pc.I8042
}

func (b *button) press() {
	b.line.Set(true)
	b.line.Set(false)
	b.keyboard.Wake()
}

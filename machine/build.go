package machine

import (
	"errors"
	"fmt"

	"vmm/boot"
	"vmm/kvm"
	"vmm/mem"
)

// build runs the steps. If one fails or panics, the earlier ones are undone.
func (m *Machine) build(steps []func() error) (err error) {
	built := false
	defer func() {
		if !built {
			m.free(drainLimit) // nothing can be stuck yet
		}
	}()
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	built = true
	return nil
}

// steps lists the build steps in order. KVM needs its reserved addresses and its
// interrupt controller before the first vCPU, and the tables must be in memory before
// the kernel is loaded. Each step records in a part what it acquires.
func (m *Machine) steps(sys *kvm.System) []func() error {
	var supported []kvm.CPUIDEntry
	var tscKHz uint32
	d := &m.devices
	return []func() error{
		m.hold,
		func() (err error) {
			supported, err = sys.SupportedCPUID()
			return err
		},
		func() error {
			bits := physicalBits(supported)
			d.windows = pciWindows(m.config.Memory, bits)
			return reachable(m.config.Memory, bits) // before KVM refuses it without an explanation
		},
		func() error { return m.addVM(sys) },
		m.addMemory,
		m.addDevices,
		// In the order in which the guest enumerates them.
		d.mapPCI, m.openDisks, m.openNets, m.addRNG, m.addConsoles, m.addBalloon, m.addVsock, m.openShares,
		func() (err error) {
			tscKHz, err = m.addCPUs(sys, supported)
			return err
		},
		func() error { return m.load(m.config.cmdline(tscKHz, m.virtioCmdline())) },
		m.enter,
	}
}

// enter sets the first vCPU to the kernel's entry point.
func (m *Machine) enter() error {
	s, err := m.kcpus[0].Sregs()
	if err != nil {
		return err
	}
	regs, s := bootRegs(m.entry, s)
	return errors.Join(m.kcpus[0].SetSregs(s), m.kcpus[0].SetRegs(regs))
}

// hold resolves the paths of the Config, unless the caller did so for several machines
// of one guest.
func (m *Machine) hold() (err error) {
	if m.files != nil {
		return nil
	}
	m.own, err = Hold(&m.config)
	m.files = m.own
	return err
}

// promise asks the accountant for the descriptors that the parts may hold.
func (m *Machine) promise() (err error) {
	if m.budget, err = descriptors.promise(&m.config); err == nil {
		m.base.does(func() { descriptors.giveBack(m.budget.all) })
	}
	return err
}

// take moves n of the machine's descriptors to p, which gives them back when it is
// closed, even if other parts are stuck.
func (m *Machine) take(p *part, n int) int {
	m.budget.all -= n
	p.does(func() { descriptors.giveBack(n) })
	return n
}

func (m *Machine) addVM(sys *kvm.System) (err error) {
	if m.vm, err = newVM(sys); err == nil {
		m.base.opened(m.vm.Close)
	}
	return err
}

func (m *Machine) addMemory() (err error) {
	if m.mem, err = mem.Map(ranges(m.config.Memory)...); err != nil {
		return &HostError{err.Error(), "ask for less memory", nil}
	}
	m.base.opened(m.mem.Close)
	for slot, r := range m.mem.Regions() {
		if err := m.vm.SetUserMemoryRegion(uint32(slot), 0, uint64(r.Base), r.Bytes); err != nil {
			return err
		}
	}
	return nil
}

// newVM returns a virtual machine with an interrupt controller and a timer (PIT).
func newVM(sys *kvm.System) (*kvm.VM, error) {
	vm, err := sys.CreateVM()
	if err != nil {
		return nil, &HostError{"no virtual machine", "run 'vmm doctor'", err}
	}
	err = errors.Join(
		vm.SetIdentityMapAddr(identityMapAddr),
		vm.SetTSSAddr(tssAddr),
		vm.CreateIRQChip(),
		vm.CreatePIT2(),
	)
	if err != nil {
		vm.Close()
		return nil, &HostError{"KVM", "run 'vmm doctor'", err}
	}
	return vm, nil
}

// load writes the ACPI tables and loads the kernel into memory.
func (m *Machine) load(cmdline string) error {
	if err := m.writeACPI(); err != nil {
		return err
	}
	p := boot.Params{
		Kernel: m.config.Kernel, Initrds: m.config.Initrds, Cmdline: cmdline, Mode: m.config.Boot,
		RSDP: acpiBase, Reserved: []mem.Range{{Base: acpiBase, Size: acpiSize}}, Log: m.log, Held: m.files.set,
	}
	if m.config.KernelCache != "" {
		p.Cache = &boot.Cache{Dir: m.config.KernelCache, Copy: m.config.CopyKernel, Held: m.files.set}
	}
	var err error
	if m.entry, err = boot.Load(m.mem, p); err != nil {
		return err
	}
	m.base.does(func() { m.entry.Finish() }) // if Run did not
	return nil
}

// addCPUs creates the vCPUs and returns their TSC frequency. All except the first wait
// for the guest to start them.
func (m *Machine) addCPUs(sys *kvm.System, supported []kvm.CPUIDEntry) (tscKHz uint32, err error) {
	cpus := m.newPart("vCPUs")
	p := cpuidParams{cpus: uint32(m.config.CPUs), tscDeadline: sys.Check(kvm.CapTSCDeadlineTimer) != 0, nested: m.config.Nested}
	for id := range m.config.CPUs {
		c, err := m.vm.CreateVCPU(id)
		if err != nil {
			return 0, &HostError{fmt.Sprintf("vCPU %d", id), "ask for fewer vCPUs", err}
		}
		cpus.opened(c.Close)
		m.kcpus = append(m.kcpus, c)
		v := newVCPU(c, &m.devices.ports, &m.devices.memory, &m.halt)
		v.lost = m.lost
		v.stats.id, v.stats.tracing = id, &m.tracing
		v.onPause = func() { m.stopped(id) }
		m.vcpus = append(m.vcpus, v)
		if khz, err := c.TSCKHz(); err == nil {
			p.tscKHz = uint32(khz)
		}
		p.id = uint32(id)
		if err := errors.Join(c.SetCPUID(cpuid(supported, p)), c.SetMSRs(bootMSRs)); err != nil {
			return 0, err
		}
	}
	cpus.does(m.threads.Wait)
	return p.tscKHz, nil
}

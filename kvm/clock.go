package kvm

// Clock returns the time of the machine's paravirtual clock (kvmclock) in ns
// (KVM_GET_CLOCK).
func (vm *VM) Clock() (uint64, error) {
	var c clockData
	errno := ioctlPtr(vm.fd, reqGetClock, &c)
	return c.Clock, fail("KVM_GET_CLOCK", errno)
}

// SetClock makes the machine's paravirtual clock continue from ns (KVM_SET_CLOCK).
// Without the flag KVM_CLOCK_REALTIME nothing is added for the time that has passed.
func (vm *VM) SetClock(ns uint64) error {
	return fail("KVM_SET_CLOCK", ioctlPtr(vm.fd, reqSetClock, &clockData{Clock: ns}))
}

// PIT returns the state of the 8254 timer (KVM_GET_PIT2).
func (vm *VM) PIT() (PIT, error) {
	var p PIT
	errno := ioctlPtr(vm.fd, reqGetPIT2, &p)
	return p, fail("KVM_GET_PIT2", errno)
}

// SetPIT sets the state of the 8254 timer (KVM_SET_PIT2). Every channel starts
// counting again from its Count; ticks that were due are lost.
func (vm *VM) SetPIT(p PIT) error { return fail("KVM_SET_PIT2", ioctlPtr(vm.fd, reqSetPIT2, &p)) }

// TSCOffset returns the guest's time-stamp counter minus the host's, modulo 2^64
// (KVM_VCPU_TSC_OFFSET). Linux has it since 5.16.
func (v *VCPU) TSCOffset() (uint64, error) {
	var offset uint64
	errno := deviceAttr(v.fd, reqGetDeviceAttr, vcpuTSCCtrl, vcpuTSCOffset, &offset)
	return offset, fail("KVM_GET_DEVICE_ATTR", errno)
}

// SetTSCOffset sets what TSCOffset returns. KVM treats vCPUs with the same offset as
// having synchronized counters.
func (v *VCPU) SetTSCOffset(offset uint64) error {
	return fail("KVM_SET_DEVICE_ATTR", deviceAttr(v.fd, reqSetDeviceAttr, vcpuTSCCtrl, vcpuTSCOffset, &offset))
}

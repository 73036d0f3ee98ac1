package kvm

// Clock returns the time of the machine's paravirtual clock (kvmclock) in ns
// (KVM_GET_CLOCK).
func (vm *VM) Clock() (uint64, error) {
	var c clockData
	errno := ioctlPtr(vm.fd, reqGetClock, &c)
	return c.Clock, fail("KVM_GET_CLOCK", errno)
}

// SetClock has the machine's paravirtual clock go on from ns (KVM_SET_CLOCK).
// Without KVM_CLOCK_REALTIME among its flags nothing is added for the time that
// has passed meanwhile.
func (vm *VM) SetClock(ns uint64) error {
	return fail("KVM_SET_CLOCK", ioctlPtr(vm.fd, reqSetClock, &clockData{Clock: ns}))
}

// PIT returns the state of the 8254 timer (KVM_GET_PIT2).
func (vm *VM) PIT() (PIT, error) {
	var p PIT
	errno := ioctlPtr(vm.fd, reqGetPIT2, &p)
	return p, fail("KVM_GET_PIT2", errno)
}

// SetPIT sets the state of the 8254 timer (KVM_SET_PIT2). Every channel begins
// to count anew, from its Count; ticks that were due are forgotten.
func (vm *VM) SetPIT(p PIT) error { return fail("KVM_SET_PIT2", ioctlPtr(vm.fd, reqSetPIT2, &p)) }

// TSCOffset returns what the guest's time-stamp counter is ahead of the host's,
// modulo 2^64 (KVM_VCPU_TSC_OFFSET). Linux has it since 5.16.
func (v *VCPU) TSCOffset() (uint64, error) {
	var offset uint64
	errno := deviceAttr(v.fd, reqGetDeviceAttr, vcpuTSCCtrl, vcpuTSCOffset, &offset)
	return offset, fail("KVM_GET_DEVICE_ATTR", errno)
}

// SetTSCOffset sets what TSCOffset returns. vCPUs that are given the same offset
// have, to KVM, synchronous counters.
func (v *VCPU) SetTSCOffset(offset uint64) error {
	return fail("KVM_SET_DEVICE_ATTR", deviceAttr(v.fd, reqSetDeviceAttr, vcpuTSCCtrl, vcpuTSCOffset, &offset))
}

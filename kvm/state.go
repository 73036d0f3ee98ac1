package kvm

import "fmt"

// Regs returns the general registers.
func (v *VCPU) Regs() (Regs, error) {
	var r Regs
	errno := ioctlPtr(v.fd, reqGetRegs, &r)
	return r, fail("KVM_GET_REGS", errno)
}

// SetRegs sets the general registers.
func (v *VCPU) SetRegs(r Regs) error { return fail("KVM_SET_REGS", ioctlPtr(v.fd, reqSetRegs, &r)) }

// Sregs returns the segment, control and descriptor-table registers.
func (v *VCPU) Sregs() (Sregs, error) {
	var s Sregs
	errno := ioctlPtr(v.fd, reqGetSregs, &s)
	return s, fail("KVM_GET_SREGS", errno)
}

// SetSregs sets the segment, control and descriptor-table registers.
func (v *VCPU) SetSregs(s Sregs) error {
	return fail("KVM_SET_SREGS", ioctlPtr(v.fd, reqSetSregs, &s))
}

// SetCPUID sets what the guest's CPUID instruction returns, before the first Run.
func (v *VCPU) SetCPUID(entries []CPUIDEntry) error {
	if len(entries) > maxCPUIDEntries {
		return fmt.Errorf("KVM_SET_CPUID2: %d entries, more than %d", len(entries), maxCPUIDEntries)
	}
	c := &cpuid2{N: uint32(len(entries))}
	copy(c.Entries[:], entries)
	return fail("KVM_SET_CPUID2", ioctlPtr(v.fd, reqSetCPUID2, c))
}

// MSRs reads the MSRs given by Index. It fails at the first one that KVM does not
// know.
func (v *VCPU) MSRs(list []MSR) error { return v.msrs(reqGetMSRs, "KVM_GET_MSRS", list) }

// SetMSRs writes MSRs in the given order and does not change the list. It fails at the
// first one that KVM rejects.
func (v *VCPU) SetMSRs(list []MSR) error { return v.msrs(reqSetMSRs, "KVM_SET_MSRS", list) }

func (v *VCPU) msrs(req uintptr, what string, list []MSR) error {
	for len(list) > 0 {
		var m msrs
		n := copy(m.Entries[:], list)
		m.N = uint32(n)
		// The kernel returns how many it processed before the first failure.
		done, errno := ioctlPtrN(v.fd, req, &m)
		if errno != 0 {
			return fail(what, errno)
		}
		if req == reqGetMSRs {
			copy(list, m.Entries[:done])
		}
		if done < n {
			return fmt.Errorf("%s: MSR %#x refused", what, list[done].Index)
		}
		list = list[n:]
	}
	return nil
}

// LAPIC returns the registers of the local APIC.
func (v *VCPU) LAPIC() (*LAPIC, error) {
	l := new(LAPIC)
	errno := ioctlPtr(v.fd, reqGetLAPIC, l)
	return l, fail("KVM_GET_LAPIC", errno)
}

// SetLAPIC sets the registers of the local APIC.
func (v *VCPU) SetLAPIC(l *LAPIC) error { return fail("KVM_SET_LAPIC", ioctlPtr(v.fd, reqSetLAPIC, l)) }

// MPState returns the multiprocessing state of the vCPU.
func (v *VCPU) MPState() (MPState, error) {
	var s MPState
	errno := ioctlPtr(v.fd, reqGetMPState, &s)
	return s, fail("KVM_GET_MP_STATE", errno)
}

// TSCKHz returns the frequency of the guest's time-stamp counter in kHz.
func (v *VCPU) TSCKHz() (int, error) {
	n, errno := ioctl(v.fd, reqGetTSCKHz, 0)
	return n, fail("KVM_GET_TSC_KHZ", errno)
}

// KVMClockCtrl tells a guest with kvmclock that it was stopped, so that its watchdogs
// do not fire (KVM_KVMCLOCK_CTRL). EINVAL means that the guest does not use kvmclock.
func (v *VCPU) KVMClockCtrl() error {
	_, errno := ioctl(v.fd, reqKVMClockCtrl, 0)
	return fail("KVM_KVMCLOCK_CTRL", errno)
}

package kvm

import (
	"sync"

	"golang.org/x/sys/unix"
)

// VM is one virtual machine: an address space and an interrupt controller. Its
// methods may be called from any goroutine, also while vCPUs run.
type VM struct {
	fd      int
	runSize int

	routeMu sync.Mutex
	routes  []irqRoutingEntry // guarded by routeMu; all that KVM has
}

// Close gives the machine up. It ends in the kernel when its vCPUs are closed
// as well.
func (vm *VM) Close() error { return unix.Close(vm.fd) }

// SetTSSAddr reserves three pages of guest physical address space, outside RAM
// and below 4 GiB, that Intel needs to run real mode (KVM_SET_TSS_ADDR).
func (vm *VM) SetTSSAddr(addr uint64) error {
	_, errno := ioctl(vm.fd, reqSetTSSAddr, uintptr(addr))
	return fail("KVM_SET_TSS_ADDR", errno)
}

// SetIdentityMapAddr reserves one page likewise, before the first vCPU
// (KVM_SET_IDENTITY_MAP_ADDR).
func (vm *VM) SetIdentityMapAddr(addr uint64) error {
	return fail("KVM_SET_IDENTITY_MAP_ADDR", ioctlPtr(vm.fd, reqSetIdentityMapAddr, &addr))
}

// CreateIRQChip puts two 8259 PICs, an I/O APIC and local APICs into the
// machine, before the first vCPU (KVM_CREATE_IRQCHIP).
func (vm *VM) CreateIRQChip() error {
	if _, errno := ioctl(vm.fd, reqCreateIRQChip, 0); errno != 0 {
		return fail("KVM_CREATE_IRQCHIP", errno)
	}
	vm.routeMu.Lock()
	defer vm.routeMu.Unlock()
	vm.routes = defaultRoutes()
	return nil
}

// CreatePIT2 puts an 8254 timer and port 0x61 into the machine
// (KVM_CREATE_PIT2, KVM_PIT_SPEAKER_DUMMY).
func (vm *VM) CreatePIT2() error {
	return fail("KVM_CREATE_PIT2", ioctlPtr(vm.fd, reqCreatePIT2, &pitConfig{Flags: pitSpeakerDummy}))
}

// SetUserMemoryRegion makes the host memory b the guest's at addr; both must
// begin and end on pages. b must stay mapped for as long as vCPUs run. An empty b deletes the slot.
func (vm *VM) SetUserMemoryRegion(slot, flags uint32, addr uint64, b []byte) error {
	r := userMemoryRegion{slot, flags, addr, uint64(len(b)), address(b)}
	return fail("KVM_SET_USER_MEMORY_REGION", ioctlPtr(vm.fd, reqSetUserMemoryRegion, &r))
}

// CreateVCPU returns a new vCPU; its id is its local APIC id.
func (vm *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, errno := ioctl(vm.fd, reqCreateVCPU, uintptr(id))
	if errno != 0 {
		return nil, fail("KVM_CREATE_VCPU", errno)
	}
	unix.CloseOnExec(fd)
	run, err := mmapRun(fd, vm.runSize)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &VCPU{fd: fd, run: run, immediate: immediateExit(run)}, nil
}

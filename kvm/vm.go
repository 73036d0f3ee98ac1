package kvm

import (
	"sync"

	"golang.org/x/sys/unix"
)

// VM is one virtual machine: an address space and an interrupt controller. Its methods
// may be called from any goroutine, even while vCPUs run.
type VM struct {
	fd      int
	runSize int

	routeMu sync.Mutex
	routes  []irqRoutingEntry // guarded by routeMu; all routes that KVM has
}

// Close releases the machine. The kernel destroys it when its vCPUs are closed too.
func (vm *VM) Close() error { return unix.Close(vm.fd) }

// SetTSSAddr reserves three pages of guest physical address space, outside RAM
// and below 4 GiB, that Intel needs to run real mode (KVM_SET_TSS_ADDR).
func (vm *VM) SetTSSAddr(addr uint64) error {
	_, errno := ioctl(vm.fd, reqSetTSSAddr, uintptr(addr))
	return fail("KVM_SET_TSS_ADDR", errno)
}

// SetIdentityMapAddr reserves one page in the same way, before the first vCPU
// (KVM_SET_IDENTITY_MAP_ADDR).
func (vm *VM) SetIdentityMapAddr(addr uint64) error {
	return fail("KVM_SET_IDENTITY_MAP_ADDR", ioctlPtr(vm.fd, reqSetIdentityMapAddr, &addr))
}

// CreateIRQChip adds two 8259 PICs, an I/O APIC and local APICs to the machine, before
// the first vCPU (KVM_CREATE_IRQCHIP).
func (vm *VM) CreateIRQChip() error {
	if _, errno := ioctl(vm.fd, reqCreateIRQChip, 0); errno != 0 {
		return fail("KVM_CREATE_IRQCHIP", errno)
	}
	vm.routeMu.Lock()
	defer vm.routeMu.Unlock()
	vm.routes = defaultRoutes()
	return nil
}

// CreatePIT2 adds an 8254 timer and port 0x61 to the machine (KVM_CREATE_PIT2,
// KVM_PIT_SPEAKER_DUMMY).
func (vm *VM) CreatePIT2() error {
	return fail("KVM_CREATE_PIT2", ioctlPtr(vm.fd, reqCreatePIT2, &pitConfig{Flags: pitSpeakerDummy}))
}

// SetUserMemoryRegion maps the host memory b at addr in the guest; both must begin and
// end on page boundaries. b must stay mapped as long as vCPUs run. An empty b deletes
// the slot.
func (vm *VM) SetUserMemoryRegion(slot, flags uint32, addr uint64, b []byte) error {
	r := userMemoryRegion{slot, flags, addr, uint64(len(b)), address(b)}
	return fail("KVM_SET_USER_MEMORY_REGION", ioctlPtr(vm.fd, reqSetUserMemoryRegion, &r))
}

// CreateVCPU returns a new vCPU; its id is its local APIC ID.
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

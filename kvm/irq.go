package kvm

import "fmt"

// IOAPICPins is the number of I/O APIC inputs, and of GSIs that CreateIRQChip connects
// to them. GSIs 0 to 15 also lead to the PICs.
const IOAPICPins = 24

// Chips of an irqchip route.
const (
	chipPICMaster = 0 // KVM_IRQCHIP_PIC_MASTER
	chipPICSlave  = 1 // KVM_IRQCHIP_PIC_SLAVE
	chipIOAPIC    = 2 // KVM_IRQCHIP_IOAPIC
)

// defaultRoutes returns the routes that the kernel sets up with its irqchip. They are
// kept here because KVM_SET_GSI_ROUTING replaces all routes.
func defaultRoutes() []irqRoutingEntry {
	var r []irqRoutingEntry
	for gsi := uint32(0); gsi < IOAPICPins; gsi++ {
		if gsi < 16 {
			r = append(r, irqRoutingEntry{GSI: gsi, Type: routingIRQChip, U: [8]uint32{chipPICMaster + gsi/8, gsi % 8}})
		}
		r = append(r, irqRoutingEntry{GSI: gsi, Type: routingIRQChip, U: [8]uint32{chipIOAPIC, gsi}})
	}
	return r
}

// MSI is a message-signalled interrupt: a device sends it by writing data to addr.
type MSI struct {
	Addr uint64
	Data uint32
}

// RouteMSIs routes each GSI of the map, all at or above IOAPICPins, to its message,
// and leaves the routes of other GSIs unchanged.
func (vm *VM) RouteMSIs(msis map[uint32]MSI) error {
	vm.routeMu.Lock()
	defer vm.routeMu.Unlock()
	t := new(irqRouting)
	add := func(r irqRoutingEntry) bool {
		if t.N == maxRoutes {
			return false
		}
		t.Entries[t.N] = r
		t.N++
		return true
	}
	for _, r := range vm.routes {
		if _, replaced := msis[r.GSI]; !replaced {
			add(r)
		}
	}
	for gsi, m := range msis {
		if gsi < IOAPICPins {
			return fmt.Errorf("KVM_SET_GSI_ROUTING: GSI %d is a pin of the I/O APIC", gsi)
		}
		if !add(irqRoutingEntry{GSI: gsi, Type: routingMSI, U: [8]uint32{uint32(m.Addr), uint32(m.Addr >> 32), m.Data}}) {
			return fmt.Errorf("KVM_SET_GSI_ROUTING: more than %d routes", maxRoutes)
		}
	}
	if errno := ioctlPtr(vm.fd, reqSetGSIRouting, t); errno != 0 {
		return fail("KVM_SET_GSI_ROUTING", errno)
	}
	vm.routes = append(vm.routes[:0], t.Entries[:t.N]...)
	return nil
}

// IRQLine sets the level of a GSI (KVM_IRQ_LINE).
func (vm *VM) IRQLine(gsi uint32, high bool) error {
	l := irqLevel{IRQ: gsi}
	if high {
		l.Level = 1
	}
	return fail("KVM_IRQ_LINE", ioctlPtr(vm.fd, reqIRQLine, &l))
}

// AssignIRQFD makes every signal of the eventfd an edge of the GSI (KVM_IRQFD).
func (vm *VM) AssignIRQFD(fd int, gsi uint32) error {
	return fail("KVM_IRQFD", ioctlPtr(vm.fd, reqIRQFD, &irqFD{FD: uint32(fd), GSI: gsi}))
}

// DeassignIRQFD undoes AssignIRQFD.
func (vm *VM) DeassignIRQFD(fd int, gsi uint32) error {
	return fail("KVM_IRQFD", ioctlPtr(vm.fd, reqIRQFD, &irqFD{FD: uint32(fd), GSI: gsi, Flags: irqFDDeassign}))
}

// IOEvent is a guest write that signals an eventfd instead of causing an exit.
type IOEvent struct {
	Addr  uint64 // a port, if Port
	Len   uint32 // 1, 2, 4 or 8 bytes; 0 is any length
	Port  bool
	Match bool // only a write of Data
	Data  uint64
}

// AssignIOEventFD makes the write e signal the eventfd (KVM_IOEVENTFD).
func (vm *VM) AssignIOEventFD(fd int, e IOEvent) error { return vm.ioEventFD(fd, e, 0) }

// DeassignIOEventFD undoes AssignIOEventFD with the same e.
func (vm *VM) DeassignIOEventFD(fd int, e IOEvent) error {
	return vm.ioEventFD(fd, e, ioEventFDDeassign)
}

func (vm *VM) ioEventFD(fd int, e IOEvent, flags uint32) error {
	if e.Port {
		flags |= ioEventFDPIO
	}
	if e.Match {
		flags |= ioEventFDDatamatch
	}
	a := ioEventFD{Datamatch: e.Data, Addr: e.Addr, Len: e.Len, FD: int32(fd), Flags: flags}
	return fail("KVM_IOEVENTFD", ioctlPtr(vm.fd, reqIOEventFD, &a))
}

package kvm_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"vmm/guest/payload"
	"vmm/kvm"
)

func eventfd(t *testing.T) int {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// count returns how often fd has been signalled since the last count.
func count(fd int) uint64 {
	var b [8]byte
	unix.Read(fd, b[:]) // on EAGAIN b stays zero
	return binary.LittleEndian.Uint64(b[:])
}

func TestIOEventFD(t *testing.T) {
	const bell, doorbell = 0x500, 0x5000_0000
	g := newGuest(t, payload.Forever(payload.Code(
		payload.Out8(bell, 1), payload.Out8(bell, 2),
		payload.Store32(doorbell, 7),
		payload.Out8(0x80, 0),
	)))
	port, memory := eventfd(t), eventfd(t)
	onPort := kvm.IOEvent{Addr: bell, Len: 1, Port: true, Match: true, Data: 2}
	onMemory := kvm.IOEvent{Addr: doorbell, Len: 4}
	if err := g.vm.AssignIOEventFD(port, onPort); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.AssignIOEventFD(memory, onMemory); err != nil {
		t.Fatal(err)
	}
	if e := g.exit(t); e.Addr != bell || e.Data[0] != 1 {
		t.Fatalf("exit %+v, want the write that does not match", e)
	}
	if e := g.exit(t); e.Addr != 0x80 {
		t.Fatalf("exit %+v, want the port behind the doorbells", e)
	}
	if p, m := count(port), count(memory); p != 1 || m != 1 {
		t.Errorf("%d signals of the port and %d of the memory, want 1 each", p, m)
	}
	if err := g.vm.DeassignIOEventFD(memory, onMemory); err != nil {
		t.Fatal(err)
	}
	g.exit(t)
	if e := g.exit(t); e.Reason != kvm.ExitMMIO || e.Addr != doorbell {
		t.Errorf("exit %+v, want the doorbell that is no more", e)
	}
	if err := g.vm.DeassignIOEventFD(memory, onMemory); err == nil {
		t.Error("a second Deassign succeeded")
	}
}

// TestIOEventFDValues: several ioeventfds at one port, distinguished by the value, like
// virtio-pci's queues; any other width or value is an exit.
func TestIOEventFDValues(t *testing.T) {
	const bell = 0x1000
	g := newGuest(t, payload.Forever(payload.Code(
		payload.Out16(bell, 0), payload.Out16(bell, 1), payload.Out16(bell, 1),
		payload.Out16(bell, 2), payload.Out8(bell, 1), payload.Out32(bell, 1),
	)))
	var fds [2]int
	event := func(i int) kvm.IOEvent {
		return kvm.IOEvent{Addr: bell, Len: 2, Port: true, Match: true, Data: uint64(i)}
	}
	for i := range fds {
		fds[i] = eventfd(t)
		if err := g.vm.AssignIOEventFD(fds[i], event(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []struct {
		size int
		v    byte
	}{{2, 2}, {1, 1}, {4, 1}} {
		if e := g.exit(t); e.Addr != bell || len(e.Data) != want.size || e.Data[0] != want.v {
			t.Fatalf("exit %+v, want %d bytes of %d", e, want.size, want.v)
		}
	}
	if a, b := count(fds[0]), count(fds[1]); a != 1 || b != 2 {
		t.Errorf("%d and %d signals, want 1 and 2", a, b)
	}
	for i := range fds {
		if err := g.vm.DeassignIOEventFD(fds[i], event(i)); err != nil {
			t.Error(err)
		}
	}
	if e := g.exit(t); e.Addr != bell || len(e.Data) != 2 || e.Data[0] != 0 {
		t.Errorf("exit %+v, want a doorbell that is no more", e)
	}
}

// Registers of the local APIC, SDM vol. 3A 10.4.1.
const (
	apicSVR = 0xf0
	apicIRR = 0x200
)

func pending(t *testing.T, cpu *kvm.VCPU, vector int) bool {
	l, err := cpu.LAPIC()
	if err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(l[apicIRR+vector/32*16:])>>(vector%32)&1 == 1
}

func TestIRQFD(t *testing.T) {
	const gsi, vector = kvm.IOAPICPins + 8, 0x41
	g := newGuest(t, payload.Spin())
	l, err := g.cpu.LAPIC()
	if err != nil {
		t.Fatal(err)
	}
	l[apicSVR+1] |= 1 // software enable
	if err := g.cpu.SetLAPIC(l); err != nil {
		t.Fatal(err)
	}
	fd := eventfd(t)
	if err := g.vm.AssignIRQFD(fd, gsi); err != nil {
		t.Fatal(err)
	}
	routes := map[uint32]kvm.MSI{gsi: {Addr: 0xfee0_0000, Data: vector}, gsi + 1: {Addr: 0xfee0_0000, Data: vector + 1}}
	if err := g.vm.RouteMSIs(routes); err != nil {
		t.Fatal(err)
	}
	if pending(t, g.cpu, vector) {
		t.Fatal("an interrupt before the signal")
	}
	unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	if !pending(t, g.cpu, vector) || pending(t, g.cpu, vector+1) {
		t.Error("the signal did not become the interrupt that its route names")
	}
	// Routes of other GSIs survive a change.
	if err := g.vm.RouteMSIs(map[uint32]kvm.MSI{gsi + 1: {Addr: 0xfee0_0000, Data: vector + 2}}); err != nil {
		t.Fatal(err)
	}
	if err := g.vm.IRQLine(gsi+1, true); err != nil {
		t.Fatal(err)
	}
	if !pending(t, g.cpu, vector+2) {
		t.Error("the changed route is not in force")
	}
	if err := g.vm.DeassignIRQFD(fd, gsi); err != nil {
		t.Error(err)
	}
	if err := g.vm.RouteMSIs(map[uint32]kvm.MSI{4: {}}); err == nil {
		t.Error("a message in place of a pin of the I/O APIC")
	}
	many := make(map[uint32]kvm.MSI)
	for i := range uint32(5000) {
		many[100+i] = kvm.MSI{}
	}
	if err := g.vm.RouteMSIs(many); err == nil {
		t.Error("more routes than KVM has")
	}
}

// Package pci is a host bridge with one PCI bus: configuration space through ports
// and memory (ECAM), base address registers, MSI-X, and the INTx lines.
//
// Section numbers (§) are those of the PCI Local Bus Specification 3.0; those
// marked PCIe are the PCI Express Base Specification's, revision 6.0.
//
// Locks, from the outside in: Bus.mu (configuration space; held while Device methods
// are called), then any locks of the devices, then MSIX.mu and line.mu. So a device
// may raise interrupts with its own locks held, and may take these locks in Moved and
// in the hooks of its capabilities.
package pci

import "vmm/bus"

// A Device is what is behind a function: it identifies itself and serves its BARs.
// Add calls each of the first three methods once.
type Device interface {
	Ident() Ident

	// BARs returns the device's memory and port ranges, each at the index of its
	// register; there are 6. A zero BAR is none. A 64-bit one takes two registers:
	// the next is zero, or the end of the slice. The bus puts the MSI-X BAR into the
	// first free register after these.
	BARs() []BAR

	// Capabilities are listed in this order; MSI-X comes after them.
	Capabilities() []Capability

	// Moved says that a BAR of the device now answers at addr on its bus (memory or
	// ports), or no longer does (ioeventfds must follow). A BAR that moves is first
	// off at the old address, then on at the new one. Calls are in order, one at a
	// time for a whole Bus, on the thread of the vCPU that writes configuration
	// space, or on that of the caller of Load or Reset. Moved may take locks, change
	// the buses and raise interrupts. It must not access configuration space, or wait
	// for a vCPU, which may itself be waiting to access it.
	Moved(bar int, addr uint64, on bool)

	// BusMaster says whether the device may access memory (Command, §6.2.2);
	// initially it may not. The device postpones its accesses until it may. MSI-X
	// messages, which are such accesses, wait by themselves. It is called as Moved
	// is, and must not wait; a guest can cause calls at any rate.
	BusMaster(on bool)
}

// Ident is how a header identifies a device, §6.2.1 and §6.2.4.
type Ident struct {
	Vendor, Device       uint16
	Class                uint32 // Class Code, 24 bits
	Revision             uint8
	Subvendor, Subdevice uint16
}

// A BAR is one memory range of a device or, with Ports, one I/O space range,
// §6.2.5.1.
type BAR struct {
	// Size is a power of two. For memory it is at least 16; 4096 or more lets Linux
	// map it to user space. For ports it is 4 to 256.
	Size         uint64
	Device       bus.Device
	Ports        bool
	Prefetchable bool // memory only
	Is64         bool // memory only
}

// A Capability is an element of the list of §6.7. Body holds the bytes after ID and
// Next. A guest can write the bits that are set in Writable, which is as long as Body
// or nil.
//
// If Refresh or Commit are set, the bytes from Live to the end of Body are a window
// to something else, as pci_cfg_data of virtio's VIRTIO_PCI_CAP_PCI_CFG is to the
// BARs. A guest can write all their bits. Refresh is called before a guest reads one
// of them, and Commit after it has written one. Both get the whole current body, and
// may change its live bytes. They run on a vCPU's thread with configuration space
// locked, and must not access it themselves.
type Capability struct {
	ID       byte
	Body     []byte
	Writable []byte
	Live     int
	Refresh  func(body []byte)
	Commit   func(body []byte)
}

// VendorSpecific is the ID of vendor-defined capabilities.
const VendorSpecific = 0x09

// A Vector is the target of one MSI-X table entry.
type Vector interface {
	// Signal sends the message. It is not called before Route has succeeded.
	bus.Interrupt

	// Route sets the message: a write of data to addr. A guest may ask for any
	// message. An error means that this one cannot be sent, and leaves the vector
	// silent until the guest has masked and unmasked it. (Do not log it: a guest can
	// cause calls of Route at any rate.) Route runs on a vCPU's thread with locks
	// held, and must not call back.
	Route(addr uint64, data uint32) error
}

// A Function is a place on the bus, with a device in it.
type Function struct {
	slot int
	dev  Device
	bars [6]bar
	msix MSIX
	intx INTx

	// Constant after Add.
	writable [configSize]byte // bits that a guest can write
	clears   [configSize]byte // bits that a guest clears by writing 1
	initial  [configSize]byte // what reset leaves
	windows  []capWindow
	msixAt   int // offset of the MSI-X capability, 0 if there is none

	config [configSize]byte // guarded by Bus.mu; without Interrupt Status
	master bool             // guarded by Bus.mu; what the device was told
}

// Slot returns the number of the device on the bus, 0 to 31.
func (f *Function) Slot() int { return f.slot }

// BAR returns what serves a base address register of f, and its size; nil if there is
// none. It includes the MSI-X BAR.
func (f *Function) BAR(i int) (bus.Device, uint64) {
	if i < 0 || i >= len(f.bars) {
		return nil, 0
	}
	return f.bars[i].Device, f.bars[i].Size
}

// MSIX returns the message-signalled interrupts of f. It has no vectors if Add was
// given none.
func (f *Function) MSIX() *MSIX { return &f.msix }

// INTx returns the interrupt pin of f.
func (f *Function) INTx() *INTx { return &f.intx }

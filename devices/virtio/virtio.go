// Package virtio is everything of a virtio device but the device: the
// transports (mmio.go, pci.go) and what they share (core.go).
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package virtio

import "vmm/devices/virtio/virtq"

// A Device is one kind of virtio device, whatever its transport. The transport
// calls it; it calls nobody but its queues, its Host and its host resource.
//
//	      Start            Stop
//	idle ------> serving ------> idle
type Device interface {
	ID() ID               // §5
	Features() uint64     // the bits of this kind of device; the transport adds its own
	QueueSizes() []uint16 // the largest size of each queue, a power of two

	// ReadConfig and WriteConfig access the device's configuration (§2.5), at
	// any time and on any goroutine. p comes zeroed; what lies outside of the
	// structure reads as 0, and writes there are dropped.
	ReadConfig(off uint64, p []byte)
	WriteConfig(off uint64, p []byte)

	// Start is called when the driver is ready, and on resume, with the
	// features that were negotiated. h is valid until Stop.
	Start(features uint64, h Host) error

	// Serve does all work that there is for a queue: it pops until there is
	// nothing left. It is called on the queue's own goroutine, after the guest
	// has kicked it or the device has woken it. It must not wait for anything
	// that may take long: a chain may be pushed later, on any goroutine. A
	// chain that is popped is pushed soon, whatever the host does.
	Serve(queue int, q *virtq.Queue)

	// Stop is called on reset, pause and close, with no Serve running and every
	// chain pushed. When it returns, nothing of the device touches guest memory.
	Stop()
}

// A Host is what a device may ask of its transport, from any goroutine.
type Host interface {
	Wake(queue int) // have Serve called
	ConfigChanged() // tell the driver, §2.5.1
}

// A Resetter is a device with state that a driver can change and a reset undoes.
// Reset is called while idle, on any goroutine; pause and resume do without.
type Resetter interface{ Reset() }

// An Interrupter is a device with requests that may take long. Interrupt is called
// when it is about to be stopped, and has them end early; what comes until Continue
// does as well, which is called before Start, and where it is not stopped after
// all. Both come on any goroutine, and more often than once.
type Interrupter interface {
	Interrupt()
	Continue()
}

// A Saver is a device with state of its own that a guest can see, and that a
// restored device must have. The bytes are JSON. Save is called while idle,
// Load before the first Start.
type Saver interface {
	Save() ([]byte, error)
	Load([]byte) error
}

// ID says what a device is, §5.
type ID uint16

const (
	IDNet ID = 1 + iota
	IDBlock
	IDConsole
	IDEntropy
	IDBalloon

	IDSocket ID = 19
	IDFS     ID = 26
)

// Feature bits that are not of one kind of device, §6.
const (
	FeatureIndirectDesc = 1 << 28 // VIRTIO_F_INDIRECT_DESC
	FeatureEventIdx     = 1 << 29 // VIRTIO_F_EVENT_IDX
	FeatureVersion1     = 1 << 32 // VIRTIO_F_VERSION_1
	FeatureRingPacked   = 1 << 34 // VIRTIO_F_RING_PACKED
	FeatureRingReset    = 1 << 40 // VIRTIO_F_RING_RESET
)

// Device status bits, §2.1.
const (
	StatusAcknowledge = 1
	StatusDriver      = 2
	StatusDriverOK    = 4
	StatusFeaturesOK  = 8
	StatusNeedsReset  = 64
	StatusFailed      = 128
)

// Package virtio is everything of a virtio device except the device itself: the
// transports (mmio.go, pci.go) and what they share (core.go).
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package virtio

import "vmm/devices/virtio/virtq"

// A Device is one kind of virtio device, whatever its transport. The transport calls
// it. It calls only its queues, its Host and its host resource.
//
//	      Start            Stop
//	idle ------> serving ------> idle
type Device interface {
	ID() ID               // §5
	Features() uint64     // the bits of this kind of device; the transport adds its own
	QueueSizes() []uint16 // the largest size of each queue, a power of two

	// ReadConfig and WriteConfig access the device's configuration (§2.5), at any
	// time and on any goroutine. p comes zeroed. Bytes outside the structure read as
	// 0; writes to them are dropped.
	ReadConfig(off uint64, p []byte)
	WriteConfig(off uint64, p []byte)

	// Start is called when the driver is ready, and on resume, with the negotiated
	// features. h is valid until Stop.
	Start(features uint64, h Host) error

	// Serve does all the work of a queue: it pops until nothing is left. It is called
	// on the queue's own goroutine, after the guest has kicked the queue or the
	// device has woken it. It must not wait for anything that may take long: a chain
	// may be pushed later, on any goroutine. A popped chain is pushed soon, whatever
	// the host does.
	Serve(queue int, q *virtq.Queue)

	// Stop is called on reset, pause and close, with no Serve running and every chain
	// pushed. When it returns, the device no longer touches guest memory.
	Stop()
}

// A Host is what a device may ask of its transport, from any goroutine.
type Host interface {
	Wake(queue int) // make the transport call Serve
	ConfigChanged() // tell the driver, §2.5.1
}

// A Resetter is a device with state that a driver can change and a reset undoes.
// Reset is called while the device is idle, on any goroutine. Pause and resume do not
// call it.
type Resetter interface{ Reset() }

// An Interrupter is a device with requests that may take long. Interrupt is called
// before a stop. It makes requests end early, including those that come before
// Continue. Continue is called before Start, and when the device is not stopped after
// all. Both are called on any goroutine, possibly more than once.
type Interrupter interface {
	Interrupt()
	Continue()
}

// A Saver is a device with state that a guest can see and that a restored device must
// have. The bytes are JSON. Save is called while idle, Load before the first Start.
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

// Feature bits that do not depend on the kind of device, §6.
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

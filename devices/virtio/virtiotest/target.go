// Package virtiotest is the other side of a virtio device, for tests: a board to put
// it on, a driver that drives it as a guest would, and one suite that every device
// must pass over all transports and both kinds of ring:
//
//	func TestConformance(t *testing.T) { virtiotest.Run(t, virtiotest.Target{...}) }
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package virtiotest

import (
	"testing"

	"vmm/devices/virtio"
)

// A Target describes a kind of device to the suite.
type Target struct {
	// New returns a device that was never started. All devices that it returns in one
	// test stand for the same device: they show the same host resource.
	New func(tb testing.TB) virtio.Device

	// Request returns the i-th request for a queue, which the device must answer. If
	// the device answers a queue's requests only when the host has something, and
	// perhaps never, the request has no Check. All requests may be in flight
	// together.
	Request func(queue, i int) Request

	// Config is what the device's configuration reads as, followed by zeros; nil if
	// unknown. Writable has the bits that a driver can change; nil means none.
	Config   []byte
	Writable []byte

	// Hold makes requests that the device takes from now on wait in it, as for a slow
	// host, until release is called. After several calls, the last release is enough.
	// Nil skips tests of slow devices. Busy returns how many requests wait.
	Hold func(virtio.Device) (release func())
	Busy func(virtio.Device) int

	// Done is called when all devices are closed, to check for leftovers.
	Done func(testing.TB, virtio.Device)
}

// A Request is what a driver asks, and what must result.
type Request struct {
	Out []byte // for the device to read
	In  int    // room for it to write, in bytes

	// Check examines everything written to the room, and how many bytes the device
	// said those are.
	Check func(in []byte, n uint32) error
}

// untouched fills the room of a request beforehand.
const untouched = 0xa5

// kinds of boards and rings that Run goes through.
var kinds = []Kind{MSIX, INTx, MMIO}

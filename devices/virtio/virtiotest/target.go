// Package virtiotest is the other side of a virtio device, for tests: a board to
// put it on, a driver that works it as a guest would, and one suite that every
// device passes over all transports and both kinds of ring:
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

// A Target is a kind of device, as the suite needs to know it.
type Target struct {
	// New returns a device that was never started. All that it returns in one
	// test stand for the same device: they show the same host resource.
	New func(tb testing.TB) virtio.Device

	// Request returns the i-th request for a queue, which the device must
	// answer; of a queue that it answers only when the host has something, and
	// perhaps never, the request has no Check. All requests may be in flight
	// together.
	Request func(queue, i int) Request

	// Config is what the device's configuration reads as, zeroes behind it; nil
	// if it is not known. Writable has the bits that a driver can change, nil
	// is none.
	Config   []byte
	Writable []byte

	// Hold has requests that the device takes from now on wait in it, as for a
	// slow host, until release is called, for which the last call is enough.
	// Nil leaves tests of slow devices out. Busy says how many wait.
	Hold func(virtio.Device) (release func())
	Busy func(virtio.Device) int

	// Done is called when all devices are closed, to look for what is left.
	Done func(testing.TB, virtio.Device)
}

// A Request is what a driver asks, and what must come of it.
type Request struct {
	Out []byte // for the device to read
	In  int    // room for it to write, in bytes

	// Check looks at what was written to the room, all of it, and at how many
	// bytes the device said those are.
	Check func(in []byte, n uint32) error
}

// untouched is what the room of a request has in it before.
const untouched = 0xa5

// kinds of boards and rings that Run goes through.
var kinds = []Kind{MSIX, INTx, MMIO}

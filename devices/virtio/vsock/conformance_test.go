package vsock

import (
	"fmt"
	"testing"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
)

// TestConformance: packets without an answer, and packets that are answered by a reset
// once the guest has a buffer.
func TestConformance(t *testing.T) {
	sent := func(_ []byte, n uint32) error {
		if n != 0 {
			return fmt.Errorf("%d bytes written to a packet", n)
		}
		return nil
	}
	for _, op := range []uint16{opReset, opData} {
		t.Run(fmt.Sprint(op), func(t *testing.T) {
			virtiotest.Run(t, virtiotest.Target{
				New: func(testing.TB) virtio.Device { return New(guestCID, &town{}) },
				Request: func(queue, i int) virtiotest.Request {
					switch queue {
					case queueReceive:
						return virtiotest.Request{In: headerSize + 100}
					case queueEvent:
						return virtiotest.Request{In: 4}
					}
					p := packet{srcCID: guestCID, dstCID: hostCID, srcPort: uint32(i), dstPort: 80, kind: typeStream, op: op, len: uint32(i % 100)}
					if op == opData && i%4 != 0 { // a few only: there may be no buffers to answer with
						p.op = opReset
					}
					out := make([]byte, headerSize+i%100)
					p.encode((*[headerSize]byte)(out))
					return virtiotest.Request{Out: out, Check: sent}
				},
				Config: []byte{guestCID, 0, 0, 0, 0, 0, 0, 0},
				Done: func(t testing.TB, d virtio.Device) {
					if n := d.(*Device).Conns(); n != 0 {
						t.Errorf("%d connections are left", n)
					}
				},
			})
		})
	}
}

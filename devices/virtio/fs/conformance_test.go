package fs

import (
	"fmt"
	"testing"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
)

func TestConformance(t *testing.T) {
	f := newFake()
	config := make([]byte, configSize)
	copy(config, "folder")
	config[tagSize] = 2
	virtiotest.Run(t, virtiotest.Target{
		New: func(tb testing.TB) virtio.Device { return newDevice(tb, f) },
		Request: func(_, i int) virtiotest.Request {
			out := request(opGetattr, uint64(i), uint64(i)*3, make([]byte, 16)...)
			return virtiotest.Request{Out: out, In: headerOut + 104, Check: func(in []byte, n uint32) error {
				r := reply(in)
				if int(n) != len(in) || r.length != len(in) || r.unique != uint64(i) || r.errno != 0 || le.Uint64(in[headerOut+16:]) != uint64(i)*3 {
					return fmt.Errorf("request %d: %d bytes, %+v", i, n, r)
				}
				return nil
			}}
		},
		Config: config,
		Hold:   func(virtio.Device) func() { return f.gate.hold() },
		Busy:   func(virtio.Device) int { return int(f.gate.busy.Load()) },
	})
}

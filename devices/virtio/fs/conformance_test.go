package fs

import (
	"fmt"
	"testing"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
)

// TestConformance: with a file system that answers at once, and with one that needs
// workers to wait.
func TestConformance(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprintf("slow=%v", slow), func(t *testing.T) { virtiotest.Run(t, target(slow)) })
	}
}

func target(slow bool) virtiotest.Target {
	f := newFake()
	f.slow = slow
	config := make([]byte, configSize)
	copy(config, "folder")
	config[tagSize] = 2
	target := virtiotest.Target{
		New: func(tb testing.TB) virtio.Device { return newDevice(tb, f) },
		Request: func(_, i int) virtiotest.Request {
			out := ask(opGetattr, uint64(i), uint64(i)*3, make([]byte, 16)...)
			return virtiotest.Request{Out: out, In: headerOut + 104, Check: func(in []byte, n uint32) error {
				r := reply(in)
				if int(n) != len(in) || r.length != len(in) || r.unique != uint64(i) || r.errno != 0 || le.Uint64(in[headerOut+16:]) != uint64(i)*3 {
					return fmt.Errorf("request %d: %d bytes, %+v", i, n, r)
				}
				return nil
			}}
		},
		Config: config,
	}
	if slow {
		target.Hold = func(virtio.Device) func() { return f.gate.hold() }
		target.Busy = func(virtio.Device) int { return int(f.gate.busy.Load()) }
	}
	return target
}

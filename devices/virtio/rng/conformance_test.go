package rng

import (
	"bytes"
	"fmt"
	"testing"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
)

// constant is a source that always gives the same byte.
type constant byte

func (c constant) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

func TestConformance(t *testing.T) {
	virtiotest.Run(t, virtiotest.Target{
		New: func(testing.TB) virtio.Device { return New(constant(0x42), 0) },
		Request: func(_, i int) virtiotest.Request {
			n := 1 + i*37%200
			want := bytes.Repeat([]byte{0x42}, n)
			return virtiotest.Request{In: n, Check: func(in []byte, got uint32) error {
				if int(got) != n || !bytes.Equal(in, want) {
					return fmt.Errorf("%d bytes % x, want %d", got, in, n)
				}
				return nil
			}}
		},
		Config: []byte{},
	})
}

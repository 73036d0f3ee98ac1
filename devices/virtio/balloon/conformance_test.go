package balloon

import (
	"fmt"
	"sync/atomic"
	"testing"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
	"vmm/mem"
)

// still is memory that a balloon does not change, because the suite compares it.
type still struct {
	*mem.Memory
	discards atomic.Int64
}

func (s *still) Discard([]byte) error {
	s.discards.Add(1)
	return nil
}

func TestConformance(t *testing.T) {
	m := &still{Memory: mem.New(mem.Region{Base: 0, Bytes: make([]byte, 64*mem.PageSize)})}
	config := make([]byte, configSize)
	writable := make([]byte, configSize)
	for i := range 4 {
		writable[configActual+i], writable[configPoison+i] = 0xff, 0xff
	}
	virtiotest.Run(t, virtiotest.Target{
		New:     func(testing.TB) virtio.Device { return New(m, nil) },
		Request: testRequest, Config: config, Writable: writable,
	})
	if m.discards.Load() == 0 {
		t.Error("no page was given back")
	}
}

func testRequest(queue, i int) virtiotest.Request {
	r := virtiotest.Request{Check: func(_ []byte, n uint32) error {
		if n != 0 {
			return fmt.Errorf("%d bytes written", n)
		}
		return nil
	}}
	switch queue {
	case queueInflate, queueDeflate:
		for k := range 1 + i%40 {
			r.Out = le.AppendUint32(r.Out, uint32(i+k*3)%100) // some are not RAM
		}
	case queueStats: // answered when the device asks again
		r.Check, r.Out = nil, make([]byte, statSize)
	default:
		r.In = 100 + i*97%800
		r.Check = func(in []byte, n uint32) error {
			for _, v := range in {
				if n != 0 || v != 0xa5 {
					return fmt.Errorf("%d bytes written: % x", n, in)
				}
			}
			return nil
		}
	}
	return r
}

// TestNotice: the driver is told of a target that is set while it is paused.
func TestNotice(t *testing.T) {
	m := &still{Memory: mem.New(mem.Region{Base: 0, Bytes: make([]byte, 64*mem.PageSize)})}
	target := uint64(0)
	virtiotest.Notice(t, func() virtio.Device { return New(m, nil) }, func(d virtio.Device) {
		target += mem.PageSize
		d.(*Device).SetTarget(target)
	}, nil)
}

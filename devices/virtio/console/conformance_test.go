package console

import (
	"fmt"
	"io"
	"testing"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
)

// TestConformance: a terminal with a host that never stops sending, and ports with a
// silent one.
func TestConformance(t *testing.T) {
	for _, test := range []struct {
		name string
		in   io.Reader
		make func(s Stream) *Device
	}{
		{"terminal", constant('x'), NewTerminal},
		{"ports", nil, func(s Stream) *Device {
			d, err := NewPorts(s, Stream{Name: "second", Out: io.Discard})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			new := func() *Device { return test.make(Stream{Name: "first", In: test.in, Out: io.Discard}) }
			config := make([]byte, configSize)
			config[configPorts] = byte(len(new().ports))
			virtiotest.Run(t, virtiotest.Target{
				New:     func(testing.TB) virtio.Device { return new() },
				Request: func(queue, i int) virtiotest.Request { return testRequest(test.in != nil, queue, i) },
				Config:  config,
			})
		})
	}
}

func testRequest(flood bool, queue, i int) virtiotest.Request {
	if queue%2 == 0 { // from the host
		if !flood {
			return virtiotest.Request{In: 100}
		}
		return virtiotest.Request{In: 1 + i*37%200, Check: func(in []byte, n uint32) error {
			for k, v := range in {
				if n == 0 || k < int(n) && v != 'x' || k >= int(n) && v != 0xa5 {
					return fmt.Errorf("%d bytes % x", n, in)
				}
			}
			return nil
		}}
	}
	out := make([]byte, 1+i*53%300)
	if queue == queueControlOut {
		out = message(uint32(i%4), uint16(i/4%9), uint16(i%3))
	}
	return virtiotest.Request{Out: out, Check: func(_ []byte, n uint32) error {
		if n != 0 {
			return fmt.Errorf("%d bytes were written to what is to be read", n)
		}
		return nil
	}}
}

// message is a control message.
func message(id uint32, event, value uint16) []byte {
	return le.AppendUint16(le.AppendUint16(le.AppendUint32(nil, id), event), value)
}

// TestNotice: the driver is told of a size that changes while it is paused.
func TestNotice(t *testing.T) {
	rows := uint16(24)
	change := func(d virtio.Device) {
		rows++
		d.(*Device).SetSize(80, rows)
	}
	virtiotest.Notice(t, func() virtio.Device { return NewTerminal(Stream{}) }, change, nil)
	virtiotest.Notice(t, func() virtio.Device { return NewTerminal(Stream{Await: true}) }, change, func(d *virtiotest.Driver) {
		q := d.Queues[1]
		ticket := q.Submit(virtiotest.Request{Out: []byte("$ ")})
		q.Kick()
		q.Wait(ticket)
	})
}

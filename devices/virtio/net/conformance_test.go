package net

import (
	"bytes"
	"fmt"
	"testing"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
	"vmm/ethernet"
)

var testMAC = ethernet.MAC{0x52, 0x54, 0, 1, 2, 3}

const testOffload = ethernet.Checksum | ethernet.TSO4 | ethernet.TSO6 | ethernet.ECN

// testFrame is a broadcast frame of n bytes.
func testFrame(n, seed int) []byte {
	f := make([]byte, n)
	copy(f, ethernet.Broadcast[:])
	copy(f[6:], []byte{2, 0, 0, 0, 0, 1, 0x88, 0xb5})
	for i := ethernet.HeaderLen; i < n; i++ {
		f[i] = byte(i*7 + seed)
	}
	return f
}

// TestConformance: on a silent network, and on one that never stops sending.
func TestConformance(t *testing.T) {
	for _, test := range []struct {
		name  string
		pairs int
		flood []byte
	}{
		{"silent", 1, nil},
		{"flood", 1, testFrame(20, 1)},
		{"pairs", 2, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWire(ethernet.Info{Pairs: test.pairs, MTU: 1500, Offload: testOffload})
			w.flood = test.flood
			virtiotest.Run(t, target(w))
		})
	}
}

func target(w *wire) virtiotest.Target {
	config := make([]byte, configSize)
	copy(config, testMAC[:])
	config[configStatus] = statusLinkUp
	config[configMaxPairs] = byte(w.info.Pairs)
	le.PutUint16(config[configMTU:], 1500)
	return virtiotest.Target{
		New: func(tb testing.TB) virtio.Device {
			d, err := New(w, testMAC)
			if err != nil {
				tb.Fatal(err)
			}
			return d
		},
		Request: func(queue, i int) virtiotest.Request { return testRequest(w, queue, i) },
		Config:  config,
	}
}

func testRequest(w *wire, queue, i int) virtiotest.Request {
	switch {
	case queue == 2*w.info.Pairs: // promiscuous mode, on and off
		return virtiotest.Request{Out: []byte{classRX, rxPromiscuous, byte(i & 1)}, In: 1, Check: func(in []byte, n uint32) error {
			if n != 1 || in[0] > ackErr { // ackErr without the features
				return fmt.Errorf("%d bytes, ack %d", n, in[0])
			}
			return nil
		}}
	case queue%2 == 1:
		out := append(make([]byte, ethernet.HeaderSize), testFrame(60+i%100, i)...)
		return virtiotest.Request{Out: out, Check: func(_ []byte, n uint32) error {
			if n != 0 {
				return fmt.Errorf("%d bytes written for a frame to send", n)
			}
			return nil
		}}
	case w.flood == nil:
		return virtiotest.Request{In: 1526}
	}
	want := append(make([]byte, ethernet.HeaderSize), w.flood...)
	want[10] = 1 // buffer
	return virtiotest.Request{In: 100, Check: func(in []byte, n uint32) error {
		if int(n) != len(want) || !bytes.Equal(in[:n], want) {
			return fmt.Errorf("%d bytes % x, want % x", n, in[:n], want)
		}
		return nil
	}}
}

// TestNotice: the driver is told of a cable that is plugged in or out while it is
// paused.
func TestNotice(t *testing.T) {
	virtiotest.Notice(t, func() virtio.Device {
		d, err := New(newWire(ethernet.Info{Pairs: 1, Offload: testOffload}), testMAC)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}, func(d virtio.Device) { d.(*Device).SetUp(!d.(*Device).up.Load()) }, nil)
}

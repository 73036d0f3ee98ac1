package net

import (
	"sync/atomic"

	"vmm/histogram"
)

// Stats holds a card's counters since it was made.
type Stats struct {
	Received    Counters // by the guest
	Transmitted Counters // by the guest
}

// Counters holds the counters of one direction.
type Counters struct {
	Frames  uint64
	Bytes   uint64 // of frames, without the virtio header
	Dropped uint64 // for lack of room, because the link was down, or by the filter
	Errors  uint64 // driver mistakes, or frames that the host refused
}

// counters is the live form of Counters.
type counters struct{ frames, bytes, dropped, errors atomic.Uint64 }

func (c *counters) count(n int) {
	c.frames.Add(1)
	c.bytes.Add(uint64(n))
}

func (c *counters) add(to *Counters) {
	to.Frames += c.frames.Load()
	to.Bytes += c.bytes.Load()
	to.Dropped += c.dropped.Load()
	to.Errors += c.errors.Load()
}

// Stats returns the counters of all pairs.
func (d *Device) Stats() (s Stats) {
	for i := range d.rx {
		d.rx[i].counters.add(&s.Received)
		d.tx[i].counters.add(&s.Transmitted)
	}
	return s
}

// Counters implements virtio.Counter.
func (d *Device) Counters() map[string]uint64 {
	s := d.Stats()
	return map[string]uint64{
		"rx_frames": s.Received.Frames, "rx_bytes": s.Received.Bytes, "rx_dropped": s.Received.Dropped, "rx_errors": s.Received.Errors,
		"tx_frames": s.Transmitted.Frames, "tx_bytes": s.Transmitted.Bytes, "tx_dropped": s.Transmitted.Dropped, "tx_errors": s.Transmitted.Errors,
	}
}

// Latency implements virtio.Counter. Frames are not requests, so there is none.
func (*Device) Latency() map[string]histogram.Snapshot { return nil }

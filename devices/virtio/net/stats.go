package net

import "sync/atomic"

// Stats are a card's counters since it was made, §5.1 or not.
type Stats struct {
	Received    Counters // by the guest
	Transmitted Counters // by the guest
}

// Counters are of one direction.
type Counters struct {
	Frames  uint64
	Bytes   uint64 // of frames, without virtio's header
	Dropped uint64 // for want of room, because the link was down, or by the filter
	Errors  uint64 // that no driver may make, or that the host refused
}

// counters is Counters while it is counted.
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

package blk

import (
	"sync/atomic"
	"time"

	"vmm/histogram"
)

// stats is what the device has done. A request's latency is from its pop to its
// answer: it does not include the driver's part or the interrupt.
type stats struct {
	read, write, flush, discard histogram.Histogram
	failed, refused             atomic.Uint64
}

// done counts a request that has been answered.
func (s *stats) done(r *request, answer status) {
	switch answer {
	case statusIOErr:
		s.failed.Add(1)
		return
	case statusUnsupp:
		s.refused.Add(1)
		return
	}
	took := time.Since(r.began)
	switch r.kind {
	case typeIn:
		s.read.Observe(took)
	case typeOut:
		s.write.Observe(took)
	case typeFlush:
		s.flush.Observe(took)
	case typeDiscard, typeWriteZeroes:
		s.discard.Observe(took)
	}
}

// Counters implements virtio.Counter.
func (d *Device) Counters() map[string]uint64 {
	return map[string]uint64{"failed": d.stats.failed.Load(), "refused": d.stats.refused.Load()}
}

// Latency implements virtio.Counter.
func (d *Device) Latency() map[string]histogram.Snapshot {
	s := &d.stats
	return map[string]histogram.Snapshot{"read": s.read.Load(), "write": s.write.Load(), "flush": s.flush.Load(), "discard": s.discard.Load()}
}

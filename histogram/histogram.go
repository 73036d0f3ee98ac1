// Package histogram counts durations by their size, without a lock or an
// allocation: what a device may do for each request.
package histogram

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// buckets are of 1 µs, 2 µs, 4 µs and so on to 33 s, and one for what took longer.
const buckets = 27

// Histogram counts durations. Its zero value is empty; its methods may be called
// from any goroutine.
type Histogram struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Uint64 // ns
}

// Snapshot is what a Histogram has counted.
type Snapshot struct {
	Counts [buckets]uint64 // each is of durations up to Bound, and above the one before
	Sum    time.Duration
}

// Observe counts one duration.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(d)].Add(1)
	h.sum.Add(uint64(d))
}

func bucket(d time.Duration) int {
	whole := (d + time.Microsecond - 1) / time.Microsecond // rounded up
	if whole == 0 {
		return 0
	}
	return min(bits.Len64(uint64(whole-1)), buckets-1)
}

// Bound is the longest duration that bucket i counts; the last has no bound, and
// the returned one means nothing.
func Bound(i int) time.Duration { return time.Microsecond << i }

// Last is the index of the bucket without a bound.
const Last = buckets - 1

// Load returns what was counted so far.
func (h *Histogram) Load() (s Snapshot) {
	for i := range s.Counts {
		s.Counts[i] = h.counts[i].Load()
	}
	s.Sum = time.Duration(h.sum.Load())
	return s
}

// Total is how many durations were counted.
func (s Snapshot) Total() (n uint64) {
	for _, c := range s.Counts {
		n += c
	}
	return n
}

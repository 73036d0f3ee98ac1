// Package histogram counts durations by magnitude, without a lock or an allocation, so
// a device can do it for each request.
package histogram

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// buckets is the number of buckets: 1 µs, 2 µs, 4 µs and so on to 33 s, and one for
// longer durations.
const buckets = 27

// Histogram counts durations. Its zero value is empty; its methods may be called
// from any goroutine.
type Histogram struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Uint64 // ns
}

// Snapshot is the contents of a Histogram at one time.
type Snapshot struct {
	Counts [buckets]uint64 // each counts durations up to its Bound, and above the previous one
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

// Bound is the longest duration that bucket i counts; for the last bucket, which has
// no bound, the result is meaningless.
func Bound(i int) time.Duration { return time.Microsecond << i }

// Last is the index of the bucket without a bound.
const Last = buckets - 1

// Load returns the counts so far.
func (h *Histogram) Load() (s Snapshot) {
	for i := range s.Counts {
		s.Counts[i] = h.counts[i].Load()
	}
	s.Sum = time.Duration(h.sum.Load())
	return s
}

// Total is the number of durations counted.
func (s Snapshot) Total() (n uint64) {
	for _, c := range s.Counts {
		n += c
	}
	return n
}

package histogram

import (
	"math"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-1: 0, 0: 0, 1: 0, time.Microsecond: 0, time.Microsecond + 1: 1, 2 * time.Microsecond: 1, 2001: 2, 4 * time.Microsecond: 2,
		time.Millisecond: 10, 33 * time.Second: 25, 34 * time.Second: Last, math.MaxInt64: Last,
	} {
		var h Histogram
		h.Observe(d)
		s := h.Load()
		if s.Counts[want] != 1 || s.Total() != 1 || s.Sum != max(d, 0) {
			t.Errorf("%v: %+v, want bucket %d", d, s, want)
		}
		if d > 0 && (want != Last && d > Bound(want) || want > 0 && d <= Bound(want-1)) {
			t.Errorf("%v is not within bucket %d: (%v, %v]", d, want, Bound(want-1), Bound(want))
		}
	}
}

func TestNoAllocation(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	var h Histogram
	for b.Loop() {
		h.Observe(5 * time.Microsecond)
	}
}

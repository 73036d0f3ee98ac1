package eventfd

import (
	"testing"
	"time"
)

// TestYielder: a goroutine that waits often yields before the monitor's 10 ms are over,
// but not each time. One that waits long has nothing to yield.
func TestYielder(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		every    time.Duration // between waits
		from, to int           // how many of 1000 may yield
	}{
		{10 * time.Microsecond, 1, 3},
		{ms, 190, 260},
		{5 * ms, 990, 1000},
		{9 * ms, 990, 1000},
		{11 * ms, 0, 0},
		{time.Second, 0, 0},
	} {
		var y Yielder
		now, n, last := time.Unix(1000, 0), 0, time.Unix(1000, 0)
		for range 1000 {
			now = now.Add(test.every)
			if y.due(now) {
				n++
				last = now
			}
			if now.Sub(last) > hogs && test.to > 0 {
				t.Fatalf("every %v: it did not yield for %v", test.every, now.Sub(last))
			}
		}
		if n < test.from || n > test.to {
			t.Errorf("every %v: it yields %d times in 1000, not %d to %d", test.every, n, test.from, test.to)
		}
	}
}

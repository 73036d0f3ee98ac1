package rate

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	now := time.Unix(1000, 0)
	b := New(100, 500*time.Millisecond, 1)
	for i, step := range []struct {
		after time.Duration // since the previous step
		need  float64
		want  time.Duration
		take  float64
	}{
		{0, 0, 0, 50},                                      // the whole burst
		{0, 0, time.Microsecond, 0},                        // empty
		{10 * time.Millisecond, 0, 0, 31},                  // one token is there, more are taken
		{0, 0, 300*time.Millisecond + time.Microsecond, 0}, // in debt
		{0, 10, 400*time.Millisecond + time.Microsecond, 0},
		{300 * time.Millisecond, 0, time.Microsecond, 0},
		{time.Hour, 50, 0, 0}, // no more than the burst
		{0, 51, 10*time.Millisecond + time.Microsecond, 0},
	} {
		now = now.Add(step.after)
		if got := b.Wait(now, step.need); (got - step.want).Abs() > time.Nanosecond {
			t.Errorf("step %d: wait %v, want %v", i, got, step.want)
		}
		b.Take(step.take)
	}
	var none Bucket
	none.Take(1e9)
	if got := none.Wait(now, 1); got != 0 {
		t.Errorf("no bound: wait %v", got)
	}
	if least := New(1, time.Millisecond, 1); least.Wait(now, 1) != 0 {
		t.Error("the first does not pass")
	}
}

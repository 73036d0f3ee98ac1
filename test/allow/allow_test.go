package allow

import (
	"testing"
	"time"
)

func TestTime(t *testing.T) {
	for factor, want := range map[string]time.Duration{
		"": time.Minute, "3": 3 * time.Minute, "1.5": 90 * time.Second, "0.5": 30 * time.Second,
		"0": time.Minute, "-2": time.Minute, "NaN": time.Minute, "+Inf": time.Minute, "much": time.Minute,
	} {
		t.Setenv(Variable, factor)
		if got := Time(time.Minute); got != want {
			t.Errorf("%q: %v, want %v", factor, got, want)
		}
	}
}

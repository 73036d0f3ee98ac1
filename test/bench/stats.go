package main

import (
	"math"
	"slices"
)

// stats is what is said of the runs of one entry. Medians, because one run that
// was disturbed must not count; the range, because it tells how much to believe.
type stats struct {
	N                int
	Median, Min, Max float64
}

func summarize(values []float64) stats {
	n := len(values)
	if n == 0 {
		return stats{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	v := slices.Sorted(slices.Values(values))
	return stats{n, (v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}
}

// spread is the range as a part of the median; 0 for a single run, which has none.
func (s stats) spread() float64 { return (s.Max - s.Min) / s.Median }

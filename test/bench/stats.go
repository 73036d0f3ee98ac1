package main

import (
	"math"
	"slices"
)

// stats summarizes the runs of one entry: the median, because one disturbed run must
// not count, and the range, because it shows how reliable the median is.
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

// spread returns the range as a fraction of the median; 0 for a single run.
func (s stats) spread() float64 { return (s.Max - s.Min) / s.Median }

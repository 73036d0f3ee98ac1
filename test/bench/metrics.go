package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// metric is one of several equally important figures of a run, kept in its Parts.
type metric struct {
	name, unit string
	digits     int
	more       bool // more is better
}

// metricTables writes the tables of a report whose runs have several figures: medians
// with spreads, then ratios to the best of the baseline.
func (r *report) metricTables(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "entry\truns\tfailed\t")
	for _, m := range r.metrics {
		fmt.Fprintf(w, "%s %s\tspread\t", m.name, m.unit)
	}
	fmt.Fprintln(w)
	for _, e := range r.Entries {
		fmt.Fprintf(w, "%s\t%d\t%d\t", e.Name, len(e.values()), e.failures())
		for _, m := range r.metrics {
			if s := summarize(e.part(m.name)); s.N > 0 {
				fmt.Fprintf(w, "%.*f\t%.0f %%\t", m.digits, s.Median, 100*s.spread())
			} else {
				fmt.Fprint(w, "-\t-\t")
			}
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	fmt.Fprintln(out)
	r.ratioTable(out)
}

// ratioTable writes the entries outside the baseline, each figure divided by the best
// median of the baseline.
func (r *report) ratioTable(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "/ best %s\t", r.baseline)
	for _, m := range r.metrics {
		better := "less"
		if m.more {
			better = "more"
		}
		fmt.Fprintf(w, "%s (%s is better)\t", m.name, better)
	}
	fmt.Fprintln(w)
	for _, e := range r.Entries {
		if meant(e.Name, r.baseline) {
			continue
		}
		fmt.Fprintf(w, "%s\t", e.Name)
		for _, m := range r.metrics {
			s := summarize(e.part(m.name))
			if median, _, ok := r.bestOf(m); ok && s.N > 0 {
				fmt.Fprintf(w, "%.2f\t", s.Median/median)
			} else {
				fmt.Fprint(w, "-\t")
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "which is that\t")
	for _, m := range r.metrics {
		_, name, ok := r.bestOf(m)
		if !ok {
			name = "-"
		}
		fmt.Fprintf(w, "%s\t", name)
	}
	fmt.Fprintln(w)
	w.Flush()
}

// bestOf returns the best median of a figure in the baseline, and the name of its
// entry.
func (r *report) bestOf(m metric) (median float64, name string, ok bool) {
	for _, e := range r.Entries {
		s := summarize(e.part(m.name))
		if s.N == 0 || !meant(e.Name, r.baseline) {
			continue
		}
		if !ok || m.more && s.Median > median || !m.more && s.Median < median {
			median, name, ok = s.Median, e.Name, true
		}
	}
	return median, name, ok
}

// meant reports whether a name is pattern, or begins with it if that ends in "*".
func meant(name, pattern string) bool {
	prefix, many := strings.CutSuffix(pattern, "*")
	return name == pattern || many && strings.HasPrefix(name, prefix)
}

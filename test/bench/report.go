package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is the result of one benchmark, and its JSON.
type report struct {
	Bench   string
	Unit    string // of all values
	Digits  int    // after the decimal point, in the table
	Began   time.Time
	Host    host
	Notes   []string `json:",omitempty"`
	Entries []*entry

	// against are the columns of ratios, each to an entry's median, or with "*" to the
	// best median of the entries whose names begin that way.
	against []string
	// parts are the columns of medians of a run's Parts.
	parts []string
	// metrics, if any, replace these columns: parts that are each as important as the
	// value. Ratios are to the best of baseline.
	metrics  []metric
	baseline string
}

// entry is one thing that is measured repeatedly.
type entry struct {
	Name    string
	Note    string   `json:",omitempty"` // how it differs from the others
	Argv    []string `json:",omitempty"` // of its last run
	Dropped string   `json:",omitempty"` // why it was dropped
	Runs    []run

	measure func(context.Context) (run, error)
}

// run is one measurement, or a failed one: none is omitted.
type run struct {
	Round  int                // 0 is the warm-up, which does not count
	Value  float64            `json:",omitempty"` // in the report's unit
	Parts  map[string]float64 `json:",omitempty"`
	Failed string             `json:",omitempty"` // why there is no value
	Retry  bool               `json:",omitempty"` // the second attempt in this round
}

// interleave measures each entry once per round, and begins each round with another
// entry, so a temporary disturbance of the host affects all of them. A failed run is
// repeated once, and both are kept. An entry that fails twice in the warm-up is
// dropped. save is called after each round.
func (r *report) interleave(ctx context.Context, rounds int, save func() error) error {
	for round := 0; round <= rounds; round++ {
		for i := range r.Entries {
			e := r.Entries[(i+round)%len(r.Entries)]
			if e.Dropped != "" {
				continue
			}
			failed := e.once(ctx, round, false)
			if failed != "" {
				failed = e.once(ctx, round, true)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if failed != "" && round == 0 {
				e.Dropped = failed
			}
			progress("round %d of %d: %-22s %s", round, rounds, e.Name, r.last(e))
		}
		if err := save(); err != nil {
			return err
		}
	}
	return nil
}

// once measures e and returns why it failed, or "".
func (e *entry) once(ctx context.Context, round int, retry bool) string {
	result, err := e.measure(ctx)
	result.Round, result.Retry = round, retry
	if err != nil {
		result.Value, result.Failed = 0, err.Error()
		progress("round %d: %s: %v", round, e.Name, err)
	}
	e.Runs = append(e.Runs, result)
	return result.Failed
}

// last returns e's last value as text.
func (r *report) last(e *entry) string {
	result := e.Runs[len(e.Runs)-1]
	if result.Failed != "" {
		return "failed"
	}
	return fmt.Sprintf("%.*f %s", r.Digits, result.Value, r.Unit)
}

// values returns the values that count.
func (e *entry) values() (values []float64) {
	for _, x := range e.Runs {
		if x.Round > 0 && x.Failed == "" {
			values = append(values, x.Value)
		}
	}
	return values
}

func (e *entry) part(name string) (values []float64) {
	for _, x := range e.Runs {
		if v, ok := x.Parts[name]; ok && x.Round > 0 && x.Failed == "" {
			values = append(values, v)
		}
	}
	return values
}

// failures counts failed runs, including those of the warm-up.
func (e *entry) failures() (n int) {
	for _, x := range e.Runs {
		if x.Failed != "" {
			n++
		}
	}
	return n
}

// best returns the lowest median of the entries that match pattern, and false if there
// is none.
func (r *report) best(pattern string) (median float64, ok bool) {
	for _, e := range r.Entries {
		s := summarize(e.values())
		if meant(e.Name, pattern) && s.N > 0 && (!ok || s.Median < median) {
			median, ok = s.Median, true
		}
	}
	return median, ok
}

// table returns the report as text.
func (r *report) table() string {
	var b strings.Builder
	if len(r.metrics) > 0 {
		fmt.Fprintf(&b, "%s; %s\n\n", r.Bench, r.Host)
		r.metricTables(&b)
	} else {
		fmt.Fprintf(&b, "%s, in %s; %s\n\n", r.Bench, r.Unit, r.Host)
		r.valueTable(&b)
	}
	b.WriteByte('\n')
	for _, e := range r.Entries {
		if e.Dropped != "" {
			fmt.Fprintf(&b, "%s: dropped: %s\n", e.Name, e.Dropped)
		}
		if e.Note != "" {
			fmt.Fprintf(&b, "%s: %s\n", e.Name, e.Note)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintln(&b, n)
	}
	return b.String()
}

// valueTable writes the entries' values, parts and ratios.
func (r *report) valueTable(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "entry\truns\tfailed\tmedian\tmin\tmax\tspread\t")
	for _, p := range r.parts {
		fmt.Fprintf(w, "%s\t", p)
	}
	for _, a := range r.against {
		fmt.Fprintf(w, "/ %s\t", a)
	}
	fmt.Fprintln(w)
	for _, e := range r.Entries {
		r.row(w, e)
	}
	w.Flush()
}

func (r *report) row(w *tabwriter.Writer, e *entry) {
	s := summarize(e.values())
	fmt.Fprintf(w, "%s\t%d\t%d\t", e.Name, s.N, e.failures())
	if s.N == 0 {
		fmt.Fprintln(w, strings.Repeat("-\t", 4+len(r.parts)+len(r.against)))
		return
	}
	fmt.Fprintf(w, "%.*f\t%.*f\t%.*f\t%.0f %%\t", r.Digits, s.Median, r.Digits, s.Min, r.Digits, s.Max, 100*s.spread())
	for _, p := range r.parts {
		if part := summarize(e.part(p)); part.N > 0 {
			fmt.Fprintf(w, "%.*f\t", r.Digits, part.Median)
		} else {
			fmt.Fprint(w, "-\t")
		}
	}
	for _, a := range r.against {
		if median, ok := r.best(a); ok {
			fmt.Fprintf(w, "%.2f\t", s.Median/median)
		} else {
			fmt.Fprint(w, "-\t")
		}
	}
	fmt.Fprintln(w)
}

// save writes the report's JSON into dir, and replaces the previous one.
func (r *report) save(dir string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.Bench+".json"), append(b, '\n'), 0o644)
}

// keep drops the entries whose names do not match.
func (r *report) keep(match func(string) bool) error {
	r.Entries = slices.DeleteFunc(r.Entries, func(e *entry) bool { return !match(e.Name) })
	if len(r.Entries) == 0 {
		return fmt.Errorf("%s: -only matches no entry", r.Bench)
	}
	return nil
}

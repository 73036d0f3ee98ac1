package main

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSummarize(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   stats
		spread float64
	}{
		{[]float64{3}, stats{1, 3, 3, 3}, 0},
		{[]float64{4, 2}, stats{2, 3, 2, 4}, 2. / 3},
		{[]float64{9, 1, 2}, stats{3, 2, 1, 9}, 4},
		{[]float64{4, 1, 3, 2}, stats{4, 2.5, 1, 4}, 1.2},
	} {
		before := append([]float64(nil), test.values...)
		got := summarize(test.values)
		if got != test.want || got.spread() != test.spread {
			t.Errorf("summarize(%v) = %v, spread %v; want %v, %v", test.values, got, got.spread(), test.want, test.spread)
		}
		for i := range before {
			if test.values[i] != before[i] {
				t.Errorf("summarize sorted its argument %v", before)
			}
		}
	}
	if none := summarize(nil); none.N != 0 || !math.IsNaN(none.Median) {
		t.Errorf("summarize(nil) = %v", none)
	}
}

// fake returns an entry whose runs return the values in turn; a negative value is a
// failure. Each run appends its name to order.
func fake(name string, order *[]string, values ...float64) *entry {
	e := &entry{Name: name}
	e.measure = func(context.Context) (run, error) {
		*order = append(*order, name)
		v := values[0]
		if values = values[1:]; v < 0 {
			return run{}, errors.New("stalled")
		}
		return run{Value: v, Parts: map[string]float64{"part": v / 2}}, nil
	}
	return e
}

func TestInterleave(t *testing.T) {
	var order []string
	r := &report{Bench: "test", Entries: []*entry{
		fake("a", &order, 100, 1, -1, 3),   // fails once, in round 2
		fake("b", &order, -1, -1),          // never works: dropped
		fake("c", &order, 50, -1, -1, 6.0), // has no value in round 1
	}}
	saved := 0
	if err := r.interleave(t.Context(), 2, func() error { saved++; return nil }); err != nil {
		t.Fatal(err)
	}
	if want := "a b b c" + " c c a" + " c a a"; strings.Join(order, " ") != want {
		t.Errorf("order %v, want %s", order, want)
	}
	if saved != 3 {
		t.Errorf("saved %d times, want once a round", saved)
	}
	a, b, c := r.Entries[0], r.Entries[1], r.Entries[2]
	if v := a.values(); len(v) != 2 || v[0] != 1 || v[1] != 3 || a.failures() != 1 {
		t.Errorf("a: values %v, %d failures: the warm-up counts, or the retry does not", v, a.failures())
	}
	if last := a.Runs[3]; !last.Retry || last.Round != 2 || !a.Runs[0].equal(run{Value: 100}) {
		t.Errorf("a: runs %+v", a.Runs)
	}
	if b.Dropped != "stalled" || b.failures() != 2 || len(b.values()) != 0 {
		t.Errorf("b: %+v", b)
	}
	if v := c.values(); c.Dropped != "" || len(v) != 1 || v[0] != 6 || c.failures() != 2 {
		t.Errorf("c: %+v", c)
	}
}

func (x run) equal(y run) bool {
	return x.Round == y.Round && x.Value == y.Value && x.Failed == y.Failed && x.Retry == y.Retry
}

// TestInterleaveCancelled: no retry and no further run after the user cancels.
func TestInterleaveCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	e := &entry{Name: "a", measure: func(context.Context) (run, error) { runs++; cancel(); return run{}, nil }}
	r := &report{Entries: []*entry{e, e}}
	if err := r.interleave(ctx, 3, func() error { return nil }); !errors.Is(err, context.Canceled) || runs != 1 {
		t.Errorf("%v after %d runs", err, runs)
	}
}

func counted(name string, values ...float64) *entry {
	e := &entry{Name: name, Runs: []run{{Round: 0, Value: 1000}}}
	for i, v := range values {
		e.Runs = append(e.Runs, run{Round: i + 1, Value: v, Parts: map[string]float64{"part": 10 * v}})
	}
	return e
}

func TestTable(t *testing.T) {
	r := &report{Bench: "test", Unit: "s", Digits: 1, parts: []string{"part"}, against: []string{"vmm", "qemu*", "none"}, Entries: []*entry{
		counted("vmm", 2, 1, 4), counted("vmm cold", 1), counted("qemu a", 8), counted("qemu b", 6),
		{Name: "broken", Dropped: "does not boot", Runs: []run{{Failed: "x"}, {Failed: "x", Retry: true}}},
	}}
	rows := map[string]string{}
	for _, line := range strings.Split(r.table(), "\n") {
		for _, e := range r.Entries {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), e.Name+"  "); ok {
				rows[e.Name] = strings.Join(strings.Fields(rest), " ")
			}
		}
	}
	for name, want := range map[string]string{
		"vmm":      "3 0 2.0 1.0 4.0 150 % 20.0 1.00 0.33 -",
		"vmm cold": "1 0 1.0 1.0 1.0 0 % 10.0 0.50 0.17 -",
		"qemu a":   "1 0 8.0 8.0 8.0 0 % 80.0 4.00 1.33 -",
		"qemu b":   "1 0 6.0 6.0 6.0 0 % 60.0 3.00 1.00 -",
		"broken":   "0 2 - - - - - - - -",
	} {
		if rows[name] != want {
			t.Errorf("%s: %q, want %q", name, rows[name], want)
		}
	}
	if !strings.Contains(r.table(), "broken: dropped: does not boot") {
		t.Errorf("it does not say what was dropped:\n%s", r.table())
	}
}

// TestSave: the JSON has every run, whatever its result.
func TestSave(t *testing.T) {
	dir := t.TempDir()
	r := &report{Bench: "test", Entries: []*entry{{Name: "a", Runs: []run{{Failed: "stalled"}, {Value: 2, Retry: true}}}}}
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if runs := got.Entries[0].Runs; len(runs) != 2 || runs[0].Failed != "stalled" || runs[1].Value != 2 || !runs[1].Retry {
		t.Errorf("%s", b)
	}
}

func TestKeep(t *testing.T) {
	r := &report{Entries: []*entry{{Name: "a"}, {Name: "b"}}}
	if err := r.keep(func(s string) bool { return s == "b" }); err != nil || len(r.Entries) != 1 || r.Entries[0].Name != "b" {
		t.Errorf("%v, %v", r.Entries, err)
	}
	if r.keep(func(string) bool { return false }) == nil {
		t.Error("nothing is left, and that is no error")
	}
}

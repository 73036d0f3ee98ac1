package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"vmm/test/lab/l1"
	"vmm/test/lab/wire"
)

// fakeL1 is lost the given number of times, then answers with the length of the job's
// first argument as the status.
type fakeL1 struct{ losses *int }

func (f fakeL1) Run(_ context.Context, j wire.Job, s l1.Streams) (wire.Exit, error) {
	if *f.losses > 0 {
		*f.losses--
		return wire.Exit{}, l1.ErrLost
	}
	return wire.Exit{Status: len(j.Argv[0])}, nil
}

func (fakeL1) Close() error { return nil }

func newFake(losses int) (*emulated, *int) {
	boots := 0
	return &emulated{start: func(context.Context) (machine, error) {
		boots++
		return fakeL1{&losses}, nil
	}}, &boots
}

// TestRetry: at most one retry, and never without a note.
func TestRetry(t *testing.T) {
	for _, test := range []struct {
		losses, boots, notes int
		job                  wire.Job
		input                bool
		ok                   bool
	}{
		{0, 1, 0, wire.Job{}, false, true},
		{1, 2, 1, wire.Job{}, false, true},
		{2, 2, 1, wire.Job{}, false, false},
		{1, 1, 0, wire.Job{Terminal: &wire.Size{}}, false, false}, // what was typed is gone
		{1, 1, 0, wire.Job{}, true, false},                        // input already read is gone
	} {
		e, boots := newFake(test.losses)
		if err := e.boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		test.job.Argv = []string{"xyz"}
		var s l1.Streams
		if test.input {
			s.Input = strings.NewReader("")
		}
		exit, err := e.run(t.Context(), test.job, s)
		if *boots != test.boots || len(e.notes) != test.notes || (err == nil) != test.ok || test.ok && exit.Status != 3 {
			t.Errorf("%+v: %d boots, notes %q, %+v, %v", test, *boots, e.notes, exit, err)
		}
		if err != nil && !errors.Is(err, l1.ErrLost) {
			t.Error(err)
		}
	}
}

func TestJobs(t *testing.T) {
	dir := t.TempDir()
	o := options{jobs: filepath.Join(dir, "jobs"), timeout: 5 * time.Second}
	o.Out = dir
	file := `[{"Name": "good", "Argv": ["true"]}, {"Argv": ["sh", "-c", "echo said; exit 4"]},
		{"Name": "late", "Argv": ["sleep", "1000"], "Timeout": 100000000}, {"Argv": ["no-such-command"]}]`
	if err := os.WriteFile(o.jobs, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	jobs, err := readJobs(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	status, err := runJobs(t.Context(), here{}, o, jobs)
	if err != nil || status != 1 {
		t.Fatalf("status %d, %v", status, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all report
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, r := range all.Results {
		got[r.Name] = r.Status
	}
	if want := map[string]int{"good": 0, "sh": 4, "late": 124, "no-such-command": 127}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if said, _ := os.ReadFile(filepath.Join(dir, "sh.log")); string(said) != "said\n" {
		t.Errorf("output %q", said)
	}
}

func TestReadJobsBad(t *testing.T) {
	o := options{jobs: filepath.Join(t.TempDir(), "jobs")}
	for _, file := range []string{"", "{}", "null", "[]", `[{"Name": "x"}]`, `[{"Name": "../x", "Argv": ["y"]}]`, `[{"Argw": ["y"]}]`} {
		if err := os.WriteFile(o.jobs, []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readJobs(t.Context(), o); err == nil {
			t.Errorf("%q was read", file)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("VMM_LAB", "no")
	t.Setenv("VMM_TEST", "yes")
	t.Setenv("GOFLAGS", "-x")
	t.Setenv("SECRET", "kept")
	got := strings.Join(environment("/out"), "\n")
	for text, want := range map[string]bool{"VMM_LAB=1": true, "VMM_LAB=no": false, "VMM_LAB_OUT=/out": true, "VMM_TEST=yes": true, "GOFLAGS=-x": true, "SECRET": false} {
		if strings.Contains(got, text) != want {
			t.Errorf("%s: %v, want %v", text, !want, want)
		}
	}
}

// TestListTests lists the tests of this binary.
func TestListTests(t *testing.T) {
	for _, batch := range []int{0, 1, 3} {
		jobs, err := listTests(t.Context(), os.Args[0], batch)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, j := range jobs {
			pattern := regexp.MustCompile(j.Argv[len(j.Argv)-1])
			found = found || pattern.MatchString("TestListTests")
			if pattern.MatchString("Test") || pattern.MatchString("TestListTestsX") {
				t.Errorf("%s runs more than its tests: %v", j.Name, pattern)
			}
		}
		if !found {
			t.Errorf("batch %d: not in %v", batch, jobs)
		}
	}
}

// flaky fails once.
type flaky struct{ runs *int }

func (f flaky) Run(context.Context, wire.Job, l1.Streams) (wire.Exit, error) {
	*f.runs++
	if *f.runs == 1 {
		return wire.Exit{Status: 1}, nil
	}
	return wire.Exit{}, nil
}

func (flaky) Close() error { return nil }

// TestAgain: a failed job runs once more if the option asks for it, and the report says
// so.
func TestAgain(t *testing.T) {
	for _, again := range []bool{false, true} {
		runs := 0
		o := options{again: again, Config: l1.Config{Out: t.TempDir()}}
		status, err := runJobs(t.Context(), &emulated{machine: flaky{&runs}}, o, []wire.Job{{Name: "a", Argv: []string{"x"}}})
		if err != nil || (status == 0) != again {
			t.Errorf("again %v: status %d, %v", again, status, err)
		}
		b, _ := os.ReadFile(filepath.Join(o.Out, "results.json"))
		if strings.Contains(string(b), `"Retried": true`) != again {
			t.Errorf("again %v: the report is %s", again, b)
		}
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"vmm/test/lab/l1"
	"vmm/test/lab/wire"
)

// result is one result in results.json.
type result struct {
	Name    string
	Argv    []string
	Status  int     // as from a shell; 124 if it was killed at its deadline
	Seconds float64 // by the clock of the host where it ran
	Output  string  // file with its output from both streams
	Why     string  `json:",omitempty"` // if it has no status of its own
	Retried bool    `json:",omitempty"` // it ran again: L1 was lost during it, or -again repeated it
}

// report is the content of results.json.
type report struct {
	Results []result
	Lab     []string `json:",omitempty"` // what went wrong with the lab itself
}

// runJobs runs jobs, one after another, and writes their output and results.json into the
// results folder. The output of a failed job is also shown.
func runJobs(ctx context.Context, p place, o options, jobs []wire.Job) (int, error) {
	var all report
	status := 0
	for _, j := range jobs {
		r, err := runJob(ctx, p, o, j)
		if _, isL1 := p.(*emulated); o.again && isL1 && err == nil && r.Status != 0 {
			show(filepath.Join(o.Out, r.Output))
			progress("RETRY %s: status %d, once more", r.Name, r.Status)
			r, err = runJob(ctx, p, o, j)
			r.Retried = true
		}
		if err != nil {
			r.Status, r.Why = exitLab, err.Error()
		}
		if r.Status != 0 {
			status = 1
		}
		all.Results = append(all.Results, r)
		progress("%-4s %7.1f s  %s%s", verdict(r.Status), r.Seconds, r.Name, suffix(r.Why))
		if r.Status != 0 {
			show(filepath.Join(o.Out, r.Output))
		}
		if err != nil {
			break // L1 is gone
		}
	}
	if e, ok := p.(*emulated); ok {
		all.Lab = e.notes
	}
	b, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return 0, err
	}
	return status, os.WriteFile(filepath.Join(o.Out, "results.json"), append(b, '\n'), 0o644)
}

// readJobs reads the file that -jobs names, or makes jobs from the tests in the test binary
// that -tests names. If L1 is lost, all tests of one job run again.
func readJobs(ctx context.Context, o options) ([]wire.Job, error) {
	var jobs []wire.Job
	var err error
	if o.jobs != "" {
		jobs, err = decodeJobs(o.jobs)
	} else {
		jobs, err = listTests(ctx, o.tests, o.batch)
	}
	if err != nil {
		return nil, err
	}
	return jobs, complete(jobs, o)
}

// listTests makes a job of each batch of tests in a test binary.
func listTests(ctx context.Context, binary string, batch int) ([]wire.Job, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(ctx, binary, "-test.list", "^Test").Output()
	if err != nil {
		return nil, fmt.Errorf("%s -test.list: %w", binary, err)
	}
	var jobs []wire.Job
	for names := range slices.Chunk(strings.Fields(string(list)), max(batch, 1)) {
		name := names[0]
		if n := len(names) - 1; n > 0 {
			name += fmt.Sprintf("+%d", n)
		}
		pattern := "^(" + strings.Join(names, "|") + ")$"
		jobs = append(jobs, wire.Job{Name: name, Argv: []string{binary, "-test.v", "-test.run", pattern}})
	}
	if len(jobs) == 0 {
		return nil, fmt.Errorf("%s has no tests", binary)
	}
	return jobs, nil
}

func decodeJobs(path string) ([]wire.Job, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var jobs []wire.Job
	in := json.NewDecoder(f)
	in.DisallowUnknownFields()
	if err := in.Decode(&jobs); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return jobs, nil
}

// complete checks jobs and fills in missing fields.
func complete(jobs []wire.Job, o options) error {
	if len(jobs) == 0 {
		return errors.New("there are no jobs")
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	for i := range jobs {
		j := &jobs[i]
		if len(j.Argv) == 0 {
			return fmt.Errorf("job %d has no Argv", i)
		}
		if j.Name = jobName(*j); strings.Contains(j.Name, "/") {
			return fmt.Errorf("job %q: a name becomes a file's, so it must not have a slash", j.Name)
		}
		if j.Timeout == 0 {
			j.Timeout = o.timeout
		}
		j.Dir = filepath.Join(dir, j.Dir)
		j.Env = append(environment(o.Out), j.Env...)
	}
	return nil
}

func runJob(ctx context.Context, p place, o options, j wire.Job) (result, error) {
	r := result{Name: j.Name, Argv: j.Argv, Output: j.Name + ".log"}
	log, err := os.Create(filepath.Join(o.Out, r.Output))
	if err != nil {
		return r, err
	}
	defer log.Close()
	e, _ := p.(*emulated)
	exit, err := p.run(ctx, j, l1.Streams{Output: log, Error: log})
	r.Status, r.Seconds, r.Why = exit.Status, exit.Took.Seconds(), exit.Why
	r.Retried = e != nil && e.retried
	var late *l1.TimeoutError
	if errors.As(err, &late) {
		r.Status, r.Why, err = exitTimeout, late.Error(), nil
	}
	return r, err
}

// show copies a file to standard output.
func show(path string) {
	if b, err := os.ReadFile(path); err == nil {
		os.Stdout.Write(b)
	}
}

func verdict(status int) string {
	if status == 0 {
		return "ok"
	}
	return "FAIL"
}

func suffix(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

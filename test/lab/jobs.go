package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"vmm/test/lab/l1"
	"vmm/test/lab/wire"
)

// result is one line of results.json.
type result struct {
	Name    string
	Argv    []string
	Status  int     // as of a shell; 124 if it was killed at its deadline
	Seconds float64 // by the clock where it ran
	Output  string  // file with what it said on both streams
	Why     string  `json:",omitempty"` // if it has no status of its own
	Retried bool    `json:",omitempty"` // L1 was lost under it and it ran again
}

// report is results.json.
type report struct {
	Results []result
	Lab     []string `json:",omitempty"` // what went wrong with the lab itself
}

// runFile runs the jobs in a file, one after another, and writes their output
// and results.json into the results folder.
func runFile(ctx context.Context, p place, o options) (int, error) {
	jobs, err := readJobs(o)
	if err != nil {
		return 0, err
	}
	var all report
	status := 0
	for _, j := range jobs {
		r, err := runJob(ctx, p, o, j)
		if err != nil {
			r.Status, r.Why = exitLab, err.Error()
		}
		if r.Status != 0 {
			status = 1
		}
		all.Results = append(all.Results, r)
		progress("%-4s %7.1f s  %s%s", verdict(r.Status), r.Seconds, r.Name, suffix(r.Why))
		if err != nil {
			break // there is no L1 any more
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

func readJobs(o options) ([]wire.Job, error) {
	f, err := os.Open(o.jobs)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var jobs []wire.Job
	in := json.NewDecoder(f)
	in.DisallowUnknownFields()
	if err := in.Decode(&jobs); err != nil {
		return nil, fmt.Errorf("%s: %w", o.jobs, err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for i := range jobs {
		j := &jobs[i]
		if len(j.Argv) == 0 {
			return nil, fmt.Errorf("%s: job %d has no Argv", o.jobs, i)
		}
		if j.Name = jobName(*j); strings.Contains(j.Name, "/") {
			return nil, fmt.Errorf("%s: job %q: a name becomes a file's, so it must not have a slash", o.jobs, j.Name)
		}
		if j.Timeout == 0 {
			j.Timeout = o.timeout
		}
		j.Dir = filepath.Join(dir, j.Dir)
		j.Env = append(environment(o.Out), j.Env...)
	}
	return jobs, nil
}

func runJob(ctx context.Context, p place, o options, j wire.Job) (result, error) {
	r := result{Name: j.Name, Argv: j.Argv, Output: j.Name + ".log"}
	log, err := os.Create(filepath.Join(o.Out, r.Output))
	if err != nil {
		return r, err
	}
	defer log.Close()
	e, _ := p.(*emulated)
	before := e != nil && e.retried
	exit, err := p.run(ctx, j, l1.Streams{Output: log, Error: log})
	r.Status, r.Seconds, r.Why = exit.Status, exit.Took.Seconds(), exit.Why
	r.Retried = e != nil && e.retried && !before
	var late *l1.TimeoutError
	if errors.As(err, &late) {
		r.Status, r.Why, err = exitTimeout, late.Error(), nil
	}
	return r, err
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

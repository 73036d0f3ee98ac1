package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vmm/test/lab/l1"
	"vmm/test/lab/wire"
)

// place is where jobs run.
type place interface {
	run(context.Context, wire.Job, l1.Streams) (wire.Exit, error)
	close()
}

// newPlace returns this host, or an emulated one if this host has no hardware support for
// KVM.
func newPlace(ctx context.Context, o options) (place, error) {
	if !o.force && hasVirtualization() {
		return here{}, nil
	}
	e := &emulated{log: o.Log, start: func(ctx context.Context) (machine, error) { return startL1(ctx, o.Config) }}
	return e, e.boot(ctx)
}

// hasVirtualization reports whether the processor has VT-x or AMD-V.
func hasVirtualization() bool {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, flags, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(key) == "flags" {
			flags += " "
			return strings.Contains(flags, " vmx ") || strings.Contains(flags, " svm ")
		}
	}
	return false
}

// here runs jobs on this host.
type here struct{}

func (here) close() {}

func (here) run(ctx context.Context, j wire.Job, s l1.Streams) (wire.Exit, error) {
	limited := ctx
	if j.Timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, j.Timeout)
		defer cancel()
	}
	cmd := exec.CommandContext(limited, j.Argv[0], j.Argv[1:]...)
	cmd.Dir, cmd.Env = j.Dir, j.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.Input, s.Output, s.Error
	cmd.WaitDelay = 2 * time.Second
	began := time.Now()
	err := cmd.Run()
	exit := wire.Exit{Took: time.Since(began)}
	switch {
	case ctx.Err() != nil:
		return exit, ctx.Err()
	case limited.Err() != nil:
		return exit, &l1.TimeoutError{Limit: j.Timeout}
	case cmd.ProcessState == nil:
		exit.Status, exit.Why = 127, err.Error()
	default:
		exit.Status = cmd.ProcessState.ExitCode()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			exit.Status = 128 + int(ws.Signal())
		}
	}
	return exit, nil
}

// machine is what emulated needs of an *l1.Machine; tests bring their own.
type machine interface {
	Run(context.Context, wire.Job, l1.Streams) (wire.Exit, error)
	Close() error
}

// emulated runs jobs in L1. If L1 is lost, it starts another one, once for each job, and
// reports that.
type emulated struct {
	start   func(context.Context) (machine, error)
	log     string  // file with L1's console output; kept if an L1 was lost
	machine machine // nil before the first
	retried bool    // for this job, or the first start
	lost    bool
	notes   []string // what went wrong with the lab itself
}

func startL1(ctx context.Context, c l1.Config) (machine, error) {
	began := time.Now()
	m, err := l1.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	progress("L1 is up after %.1f s: Linux %s, %d CPUs, %d MiB", time.Since(began).Seconds(), m.Up.Release, c.CPUs, c.Memory)
	return m, nil
}

// boot starts L1, and replaces the current one if there is one.
func (e *emulated) boot(ctx context.Context) error {
	for {
		e.close()
		m, err := e.start(ctx)
		if err == nil {
			e.machine = m
			return nil
		}
		if !errors.Is(err, l1.ErrLost) || !e.mayRetry(err) {
			return err
		}
	}
}

// mayRetry allows one retry for each job.
func (e *emulated) mayRetry(err error) bool {
	e.lost = true
	e.notes = append(e.notes, err.Error())
	if e.retried {
		return false
	}
	e.retried = true
	progress("%v", err)
	progress("starting another L1, once; what was under way runs again from its start")
	return true
}

func (e *emulated) run(ctx context.Context, j wire.Job, s l1.Streams) (wire.Exit, error) {
	e.retried = false
	exit, err := e.machine.Run(ctx, j, s)
	if !errors.Is(err, l1.ErrLost) {
		return exit, err
	}
	e.lost = true
	if j.Terminal != nil || s.Input != nil || !e.mayRetry(err) {
		return exit, err
	}
	if err := e.boot(ctx); err != nil {
		return exit, err
	}
	return e.machine.Run(ctx, j, s)
}

func (e *emulated) close() {
	if e.machine != nil {
		e.machine.Close()
		e.machine = nil
		if !e.lost {
			os.Remove(e.log)
		}
	}
}

// environment returns a command's environment: this process's, without what would not be
// valid in L1, and the variables that mark the lab.
func environment(out string) []string {
	env := []string{"VMM_LAB=1", "VMM_LAB_OUT=" + out}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "PATH", "HOME", "USER", "LOGNAME", "LANG", "TERM", "SHELL":
			env = append(env, e)
		default:
			if strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "VMM_") && name != "VMM_LAB" && name != "VMM_LAB_OUT" {
				env = append(env, e)
			}
		}
	}
	return env
}

// jobName returns the name of a job's result.
func jobName(j wire.Job) string {
	if j.Name != "" {
		return j.Name
	}
	return filepath.Base(j.Argv[0])
}

func progress(format string, a ...any) { fmt.Fprintf(os.Stderr, "lab: "+format+"\n", a...) }

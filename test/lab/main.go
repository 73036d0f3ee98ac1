// Lab runs commands where KVM works as on hardware: directly if this host has
// VT-x or AMD-V, else in a machine that QEMU emulates (see docs/lab.md).
//
//	lab [flags] -- COMMAND [ARGUMENT...]
//	lab [flags] -jobs FILE
//	lab [flags] -tests BINARY
//
// The exit status is that of the command; 124 after -timeout, 125 if the lab itself failed.
// With -jobs and -tests it is 0 if every job's is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"vmm/guest/kernel"
	"vmm/test/lab/l1"
	"vmm/test/lab/wire"
)

// Exit statuses that do not come from the command.
const (
	exitTimeout = 124
	exitLab     = 125
)

type options struct {
	l1.Config
	interactive, force bool
	again              bool
	jobs, tests        string
	batch              int
	timeout, total     time.Duration
}

func main() {
	o, argv, err := parse()
	if err == nil {
		var status int
		if status, err = run(o, argv); err == nil {
			os.Exit(status)
		}
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	os.Exit(exitLab)
}

func parse() (options, []string, error) {
	var o options
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: lab [flags] -- COMMAND [ARGUMENT...]\n       lab [flags] -jobs FILE\n       lab [flags] -tests BINARY")
		flag.PrintDefaults()
	}
	flag.IntVar(&o.CPUs, "cpus", 2, "CPUs of L1")
	flag.BoolVar(&o.Count, "icount", false, "use the emulated machine, and let time there be the number of instructions, a ns each")
	flag.BoolVar(&o.TSC, "tsc", false, "let the clock of L1 be its TSC, as on most hardware; else it is the HPET")
	flag.IntVar(&o.Memory, "memory", 8192, "memory of L1 in `MiB`")
	flag.StringVar(&o.Out, "out", "", "`folder` for results, $VMM_LAB_OUT for the command (default .cache/lab)")
	flag.BoolVar(&o.interactive, "i", false, "give the command a terminal, which is this one")
	flag.BoolVar(&o.force, "force", false, "use the emulated machine even if this host has VT-x or AMD-V")
	flag.StringVar(&o.jobs, "jobs", "", "run the jobs in a JSON `file`: [{\"Name\", \"Argv\", \"Dir\", \"Env\", \"Timeout\"}]")
	flag.StringVar(&o.tests, "tests", "", "run the tests of a test `binary`, each batch of them as a job of its own")
	flag.IntVar(&o.batch, "batch", 1, "how many tests are a batch")
	flag.BoolVar(&o.again, "again", false, "in the emulated machine, run a job that fails once more, and say so")
	flag.DurationVar(&o.timeout, "timeout", 0, "kill a command after this `time`")
	flag.DurationVar(&o.total, "total", 0, "give up after this `time` altogether")
	flag.Parse()
	forms := 0
	for _, given := range []bool{flag.NArg() > 0, o.jobs != "", o.tests != ""} {
		if given {
			forms++
		}
	}
	if forms != 1 || o.interactive && flag.NArg() == 0 {
		flag.Usage()
		return o, nil, errors.New("want one of a command, -jobs and -tests")
	}
	o.force = o.force || o.Count
	return o, flag.Args(), o.prepareOut()
}

// prepareOut makes the results folder.
func (o *options) prepareOut() error {
	cache, err := kernel.Cache()
	if err != nil {
		return err
	}
	if o.Out == "" {
		o.Out = filepath.Join(cache, "lab")
	}
	if o.Out, err = filepath.Abs(o.Out); err != nil {
		return err
	}
	o.Log = filepath.Join(o.Out, fmt.Sprintf("console-%d.log", os.Getpid()))
	return os.MkdirAll(o.Out, 0o755)
}

// run returns the exit status of what ran, or the reason why the lab failed.
func run(o options, argv []string) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.total > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.total)
		defer cancel()
	}
	var jobs []wire.Job
	if len(argv) == 0 {
		var err error
		if jobs, err = readJobs(ctx, o); err != nil {
			return 0, err
		}
	}
	place, err := newPlace(ctx, o)
	if err != nil {
		return 0, err
	}
	defer place.close()
	if jobs != nil {
		return runJobs(ctx, place, o, jobs)
	}
	return runOne(ctx, place, o, argv)
}

// Bench measures vmm and its rivals (docs/bench.md):
//
//	bench boot    process start to the guest's first line, in the lab
//	bench blk     random and sequential access to a disk, in the lab
//	bench tap     a network card on a tap, in the lab
//	bench user    a network that needs no privilege, in the lab
//	bench vsock   sockets that need no network, in the lab
//	bench fs      a shared folder, in the lab
//	bench rss     resident memory of an idle guest's VMM, in the lab
//	bench start   process start to the first KVM_RUN, on this host
//	bench pio     one exit to a port and back, on this host
//
// It has two halves. Outside, it builds the programs to measure and starts bin/lab with
// a static copy of itself. Inside, that copy measures, prints a table and writes
// NAME.json into .cache/bench.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"vmm/kvm"
)

// benches are the subcommands.
var benches = map[string]struct {
	new     func(files) *report
	kernels bool                               // it needs the guest
	inLab   bool                               // it boots the guest: through bin/lab, which emulates unless KVM works here
	prepare func(context.Context, files) error // what else to build; may be nil
}{
	"boot":  {newBoot, true, true, nil},
	"blk":   {newBlk, true, true, prepareBlk},
	"tap":   {newTap, true, true, prepareNet},
	"user":  {newUser, true, true, prepareNet},
	"vsock": {newVsock, true, true, prepareNet},
	"fs":    {newFS, true, true, prepareFS},
	"start": {newStart, true, false, nil},
	"pio":   {newPIO, false, false, nil},
	"queue": {newQueue, false, false, nil},
	"rss":   {newRSS, true, true, nil},
}

type options struct {
	bench  string
	rounds int
	only   *regexp.Regexp
	inside bool
	count  bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := execute(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func execute(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "trap" {
		return trap(args[1:])
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	f, err := where()
	if err != nil {
		return err
	}
	if o.inside {
		return measure(ctx, o, f)
	}
	if err := f.lock(); err != nil {
		return err
	}
	b := benches[o.bench]
	if err := f.build(ctx, b.kernels); err != nil {
		return err
	}
	if b.prepare != nil {
		if err := b.prepare(ctx, f); err != nil {
			return err
		}
	}
	argv := []string{f.lab(), "-out", f.results}
	if o.count {
		argv = append(argv, "-icount", "-cpus", "1")
	} else if sys, err := kvm.Open(kvm.Device); err == nil && !b.inLab {
		sys.Close()
		return measure(ctx, o, f)
	}
	argv = append(argv, "--", f.self, "-inside", "-count="+strconv.FormatBool(o.count),
		"-rounds", strconv.Itoa(o.rounds), "-only", o.only.String(), o.bench)
	return command(ctx, argv...)
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: bench [flags] boot|blk|tap|user|vsock|fs|rss|start|pio|queue")
		flags.PrintDefaults()
	}
	flags.IntVar(&o.rounds, "rounds", 5, "measure everything so often, after one warm-up")
	flags.BoolVar(&o.count, "count", false, "let time in the lab be the number of instructions (docs/bench.md)")
	only := flags.String("only", "", "measure only entries whose names match this `expression`")
	flags.BoolVar(&o.inside, "inside", false, "measure here, with what the outside has built")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.bench = flags.Arg(0)
	if _, ok := benches[o.bench]; !ok || flags.NArg() != 1 {
		flags.Usage()
		return o, errors.New("want the name of one benchmark")
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("-rounds %d: at least 1", o.rounds)
	}
	o.only, err = regexp.Compile(*only)
	return o, err
}

// measure is the inner half.
func measure(ctx context.Context, o options, f files) (err error) {
	if f.scratch, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	defer os.RemoveAll(f.scratch)
	defer os.Remove(f.disk())
	defer os.RemoveAll(f.folder())
	r := benches[o.bench].new(f)
	if err := r.keep(o.only.MatchString); err != nil {
		return err
	}
	r.Began, r.Host = time.Now().UTC(), thisHost(f, o.count)
	if benches[o.bench].kernels {
		if err := fillCache(ctx, f); err != nil {
			return fmt.Errorf("kernel cache: %w", err)
		}
	}
	err = r.interleave(ctx, o.rounds, func() error { return r.save(f.results) })
	fmt.Println(r.table())
	return err
}

func progress(format string, a ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", a...) }

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

const (
	bootMemory = 256 // MiB
	// patience is the deadline of a run. A boot in the lab takes 5 to 20 s; one in a
	// few dozen stalls there.
	patience = 60 * time.Second
)

var errPatience = fmt.Errorf("no answer for %v", patience)

// up is init's first act (docs/guest.md): the kernel's own uptime, in seconds.
var up = regexp.MustCompile(`vmm-init: up ([0-9.]+)\r?\n`)

// newBoot compares the time to a guest's first line.
func newBoot(f files) *report {
	r := &report{Bench: "boot", Unit: "s", Digits: 2, parts: []string{"in kernel"}, against: []string{"vmm", "qemu-microvm*", "gokvm"},
		Notes: []string{
			"From the start of the process to init's line \"vmm-init: up\", 1 vCPU, 256 MiB, command line: " + cmdline,
			"in kernel: what of it the guest's kernel has counted itself. A ratio is to the best median of that name.",
		}}
	for _, v := range rivals() {
		e := &entry{Name: v.name, Note: v.note}
		e.measure = func(ctx context.Context) (run, error) {
			argv, err := v.argv(f, bootMemory)
			if err != nil {
				return run{}, err
			}
			e.Argv = argv
			return boot(ctx, argv)
		}
		r.Entries = append(r.Entries, e)
	}
	return r
}

func boot(ctx context.Context, argv []string) (run, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	p, err := launch(argv)
	if err != nil {
		return run{}, err
	}
	defer p.kill()
	groups, at, err := p.expect(ctx, up)
	if err != nil {
		return run{}, err
	}
	uptime, err := strconv.ParseFloat(groups[1], 64)
	return run{Value: at.Sub(p.began).Seconds(), Parts: map[string]float64{"in kernel": uptime}}, err
}

// fillCache puts the kernel into the warm cache, and checks that vmm loads it from
// there.
func fillCache(ctx context.Context, f files) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	argv, err := vmm("direct", files.warm)(f, bootMemory)
	if err != nil {
		return err
	}
	argv = append(argv, "--log-level", "info")
	p, err := launch(argv)
	if err != nil {
		return err
	}
	defer p.kill()
	if _, _, err := p.expect(ctx, regexp.MustCompile(`kernel loaded.*cached=`)); err != nil {
		return err
	}
	for keys := []string(nil); len(keys) == 0; {
		if keys, err = filepath.Glob(filepath.Join(f.warm(), "*.key")); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.New("vmm does not write its cache; its last words: " + p.tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
	again, err := launch(argv)
	if err != nil {
		return err
	}
	defer again.kill()
	_, _, err = again.expect(ctx, regexp.MustCompile(`kernel loaded.*cached=true`))
	return err
}

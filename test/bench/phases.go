package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"vmm/guest/initramfs"
)

// phasesPatience is the deadline of a run: a boot and some phases of 2.5 s.
const phasesPatience = 2 * patience

// addProgram builds a guest program and adds it to an initramfs.
func (f files) addProgram(ctx context.Context, name, initrd string) error {
	built := filepath.Join(filepath.Dir(f.self), name)
	if err := command(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built, "vmm/test/bench/"+name); err != nil {
		return err
	}
	program, err := os.ReadFile(built)
	if err != nil {
		return err
	}
	archive, err := initramfs.Read(f.initrd)
	if err != nil {
		return err
	}
	archive.File(name, 0o755, program)
	return archive.WriteFile(initrd)
}

// withWords returns a rival's command line with words added to the kernel's.
func withWords(v rival, f files, words string) ([]string, error) {
	argv, err := v.argv(f, bootMemory)
	for i, a := range argv {
		if strings.HasPrefix(a, cmdline) {
			argv[i] += " quiet " + words
		}
	}
	return argv, err
}

// followPhases makes an entry for each rival; its runs consist of phases.
func (r *report) followPhases(rivals []rival, argv func(context.Context, rival) ([]string, error), value string, figures func(map[string]float64, phase) error) {
	for _, v := range rivals {
		e := &entry{Name: v.name, Note: v.note}
		e.measure = func(ctx context.Context) (found run, err error) {
			if e.Argv, err = argv(ctx, v); err != nil {
				return run{}, err
			}
			return phases(ctx, e.Argv, value, figures)
		}
		r.Entries = append(r.Entries, e)
	}
}

// phase is what happened between two lines of the guest.
type phase struct {
	name          string
	operations    float64
	took          time.Duration
	before, after []thread
}

var (
	// The last alternative is what the kernel prints if init ends early: gokvm does not
	// exit then.
	beginLine = regexp.MustCompile(`BENCH-BEGIN (\w+)\r?\n|BENCH-(DONE)\r?\n|BENCH-FAILED ([^\r\n]*)\r?\n|([^\r\n]*\r?\n[^\r\n]*reboot: (?:System halted|Power down))`)
	endLine   = regexp.MustCompile(`BENCH-(?:END (\w+) (\d+) (\d+)|FAILED ([^\r\n]*))\r?\n`)
)

// phases boots a guest whose program prints the lines described in blkguest, and
// follows it from phase to phase. figures turns a phase into parts of the run, one of
// which is its value. Times are the host's, from line to line: not every rival gives
// its guest a correct clock. The lines themselves cost a thousandth of a phase.
func phases(ctx context.Context, argv []string, value string, figures func(parts map[string]float64, p phase) error) (run, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, phasesPatience, fmt.Errorf("no end for %v", phasesPatience))
	defer cancel()
	p, err := launch(argv)
	if err != nil {
		return run{}, err
	}
	defer p.kill()
	found := run{Parts: map[string]float64{}}
	for {
		begin, began, err := p.expect(ctx, beginLine)
		switch {
		case err != nil:
			return run{}, err
		case begin[2] != "":
			found.Value = found.Parts[value]
			return found, nil
		case begin[1] == "":
			return run{}, errors.New("the guest says: " + strings.Join(strings.Fields(begin[3]+begin[4]), " "))
		}
		before := threadTimes(p.cmd.Process.Pid)
		end, ended, err := p.expect(ctx, endLine)
		after := threadTimes(p.cmd.Process.Pid)
		if err != nil {
			return run{}, err
		}
		if end[1] != begin[1] {
			return run{}, fmt.Errorf("the guest says %q in phase %s", strings.TrimSpace(end[0]), begin[1])
		}
		operations, err := strconv.ParseFloat(end[2], 64)
		if err != nil {
			return run{}, err
		}
		guests, err := strconv.ParseFloat(end[3], 64)
		if err != nil {
			return run{}, err
		}
		took := ended.Sub(began)
		found.Parts["clock"] = guests / float64(took.Nanoseconds())
		if err := figures(found.Parts, phase{end[1], operations, took, before, after}); err != nil {
			return run{}, err
		}
	}
}

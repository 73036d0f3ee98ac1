package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	rssMemory = 128 // MiB
	// idle is how long the guest is idle at its prompt before it is measured.
	idle = 2 * time.Second
)

// prompt matches the prompt of the guest's shell, after all messages of init.
var prompt = regexp.MustCompile(`vmm-init: up [0-9.]+\r?\n(?s:.*)\$ `)

// newRSS compares the memory of a VMM besides its guest's RAM.
func newRSS(f files) *report {
	r := &report{Bench: "rss", Unit: "KiB", parts: []string{"dirty", "guest RAM", "kernel cache"}, against: []string{"vmm", "qemu-microvm*", "gokvm"},
		Notes: []string{
			fmt.Sprintf("Rss of all mappings but the guest's RAM, of an idle guest of %d MiB at its prompt (/proc/PID/smaps).", rssMemory),
			"dirty: what one more VMM costs (Private_Dirty); the rest is mostly the program's text, which all of a kind share.",
			"guest RAM, kernel cache: what is not in the value; the cache's file is mapped into the RAM, a clean page of it is the host's page cache.",
		}}
	for _, v := range rivals() {
		switch v.name {
		case "vmm", "vmm copied", "vmm bzimage", "qemu-microvm", "qemu-q35", "gokvm":
		default:
			continue // they differ only in how they boot
		}
		e, mib := &entry{Name: v.name, Note: v.note}, rssMemory
		if v.name == "gokvm" {
			mib = gokvmLeast
			e.Note = fmt.Sprintf("%d MiB, its least; %s", mib, e.Note)
		}
		e.measure = func(ctx context.Context) (run, error) {
			argv, err := v.argv(f, mib)
			if err != nil {
				return run{}, err
			}
			e.Argv = argv
			return rss(ctx, argv, mib)
		}
		r.Entries = append(r.Entries, e)
	}
	return r
}

func rss(ctx context.Context, argv []string, mib int) (run, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	p, err := launch(argv)
	if err != nil {
		return run{}, err
	}
	defer p.kill()
	if _, _, err := p.expect(ctx, prompt); err != nil {
		return run{}, err
	}
	select {
	case <-time.After(idle):
	case <-ctx.Done():
		return run{}, context.Cause(ctx)
	}
	smaps, err := os.Open(fmt.Sprintf("/proc/%d/smaps", p.cmd.Process.Pid))
	if err != nil {
		return run{}, err
	}
	defer smaps.Close()
	all, err := readSmaps(smaps)
	if err != nil {
		return run{}, err
	}
	return footprint(all, uint64(mib)<<20)
}

// mapping is a mapping in /proc/PID/smaps (proc(5)).
type mapping struct {
	start, end uint64
	mode, path string
	rss, dirty uint64 // KiB
}

func readSmaps(r io.Reader) (all []mapping, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		if key, ok := strings.CutSuffix(fields[0], ":"); ok {
			if len(all) == 0 {
				return nil, fmt.Errorf("smaps: %q before the first mapping", key)
			}
			if err := all[len(all)-1].count(key, fields[1]); err != nil {
				return nil, err
			}
			continue
		}
		m := mapping{mode: fields[1]}
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &m.start, &m.end); err != nil || m.end < m.start {
			return nil, fmt.Errorf("smaps: %q is no range", fields[0])
		}
		if len(fields) > 5 {
			m.path = strings.Join(fields[5:], " ")
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

// count adds one line of a mapping's details.
func (m *mapping) count(key, value string) error {
	var to *uint64
	switch key {
	case "Rss":
		to = &m.rss
	case "Private_Dirty":
		to = &m.dirty
	default:
		return nil
	}
	n, err := strconv.ParseUint(value, 10, 40)
	if err != nil {
		return fmt.Errorf("smaps: %s: %w", key, err)
	}
	*to += n
	return nil
}

// footprint divides the mappings into guest RAM, the cache file mapped into it, and the
// rest, which is the value.
func footprint(all []mapping, ram uint64) (run, error) {
	from, to, ok := findRAM(all, ram)
	if !ok {
		return run{}, errors.New("smaps: no mappings of the size of the guest's RAM")
	}
	var rest, dirty, guest, cache uint64
	for i, m := range all {
		switch {
		case i < from || i >= to:
			rest += m.rss
			dirty += m.dirty
		case strings.HasPrefix(m.path, "/") && strings.Contains(m.path, ".image"):
			cache += m.rss
		default:
			guest += m.rss
		}
	}
	return run{Value: float64(rest), Parts: map[string]float64{
		"dirty": float64(dirty), "guest RAM": float64(guest), "kernel cache": float64(cache),
	}}, nil
}

// findRAM returns the adjacent writable mappings that are size bytes together: the RAM
// is one mapping, or several if the kernel is mapped into it. Of several candidates it
// returns the one with the most resident pages.
func findRAM(all []mapping, size uint64) (from, to int, ok bool) {
	var most uint64
	for i := range all {
		var n, resident uint64
		for j := i; j < len(all) && n < size; j++ {
			m := all[j]
			if !strings.HasPrefix(m.mode, "rw") || j > i && m.start != all[j-1].end {
				break
			}
			n += m.end - m.start
			resident += m.rss
			if n == size && (!ok || resident > most) {
				from, to, ok, most = i, j+1, true, resident
			}
		}
	}
	return from, to, ok
}

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"vmm/guest/initramfs"
)

const (
	diskSize = 512 << 20 // bytes; all of it stays in the host's page cache
	mib      = 1 << 20
	// blkPatience is the deadline of a run: a boot, and four phases of 2.5 s.
	blkPatience = 2 * patience
)

// blkMetrics are what a run finds; rand8 is its value.
var blkMetrics = []metric{
	{name: "rand1", unit: "µs", digits: 1},
	{name: "rand8", unit: "µs", digits: 1},
	{name: "cpu1", unit: "µs", digits: 1},
	{name: "cpu8", unit: "µs", digits: 1},
	{name: "read", unit: "MB/s", more: true},
	{name: "write", unit: "MB/s", more: true},
}

// newBlk compares disks: a raw image in the host's page cache, and a guest that
// goes past its own.
func newBlk(f files) *report {
	r := &report{Bench: "blk", Unit: "µs", Digits: 1, metrics: blkMetrics, baseline: "qemu-*", Notes: []string{
		"Operations on /dev/vda with O_DIRECT, by Linux AIO in a guest of 1 vCPU and 256 MiB; raw image of 512 MiB in the host's page cache, which all rivals use.",
		"rand1, rand8: time of a random read of 4 KiB, 1 or 8 in flight. read, write: 1 MiB each, in order, 4 in flight.",
		"cpu1, cpu8: time on a processor of the VMM's threads other than vCPUs, for one operation of rand1, rand8 (/proc/PID/task/*/schedstat); - if a vCPU's thread cannot be told from others.",
	}}
	f.initrd = f.blkInitrd()
	for _, v := range blkRivals() {
		e := &entry{Name: v.name, Note: v.note}
		e.measure = func(ctx context.Context) (run, error) {
			argv, err := blkArgv(v, f)
			if err != nil {
				return run{}, err
			}
			e.Argv = argv
			return blk(ctx, argv)
		}
		r.Entries = append(r.Entries, e)
	}
	return r
}

func (f files) blkGuest() string  { return filepath.Join(filepath.Dir(f.self), "blkguest") }
func (f files) blkInitrd() string { return filepath.Join(f.results, "initrd-blk.cpio") }

// disk is the image. In the lab /tmp is an overlay, which would be measured too;
// and a file there is in memory in any case.
func (f files) disk() string {
	if emulated() {
		return filepath.Join("/dev/shm", filepath.Base(f.scratch)+".img")
	}
	return filepath.Join(f.scratch, "disk.img")
}

// prepareBlk is what the outside does: it builds the guest's program and puts
// it into an initramfs.
func prepareBlk(ctx context.Context, f files) error {
	if err := command(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", f.blkGuest(), "vmm/test/bench/blkguest"); err != nil {
		return err
	}
	program, err := os.ReadFile(f.blkGuest())
	if err != nil {
		return err
	}
	archive, err := initramfs.Read(f.initrd)
	if err != nil {
		return err
	}
	archive.File("blkguest", 0o755, program)
	return archive.WriteFile(f.blkInitrd())
}

// blkArgv is a rival's command line with the guest's program on the kernel's,
// and makes the image if there is none yet.
func blkArgv(v rival, f files) ([]string, error) {
	if _, err := os.Stat(f.disk()); err != nil {
		if err := makeDisk(f.disk()); err != nil {
			return nil, err
		}
	}
	argv, err := v.argv(f, bootMemory)
	for i, a := range argv {
		if strings.HasPrefix(a, cmdline) {
			argv[i] += " quiet " + blkCommand
		}
	}
	return argv, err
}

// makeDisk fills an image with what no file system could store as a hole or
// share: no two of its blocks are the same.
func makeDisk(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	block, random := make([]byte, mib), rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(block); i += 8 {
		binary.LittleEndian.PutUint64(block[i:], random.Uint64())
	}
	for n := range uint64(diskSize / mib) {
		for at := 0; at < len(block); at += 4096 {
			binary.LittleEndian.PutUint64(block[at:], n)
		}
		if _, err := file.Write(block); err != nil {
			return err
		}
	}
	return file.Close()
}

// blkCommand is for init.
const blkCommand = "vmm.exec=/blkguest"

var (
	// The last is what the kernel says when init ends without it: gokvm does not end then.
	blkBegin = regexp.MustCompile(`BLK-BEGIN (\w+)\r?\n|BLK-(DONE)\r?\n|BLK-FAILED ([^\r\n]*)\r?\n|([^\r\n]*\r?\n[^\r\n]*reboot: (?:System halted|Power down))`)
	blkEnd   = regexp.MustCompile(`BLK-(?:END (\w+) (\d+) (\d+)|FAILED ([^\r\n]*))\r?\n`)
)

// blk boots the guest and follows it from phase to phase. Time is the host's,
// from line to line: not every rival gives its guest a clock that is right. What
// the lines themselves cost is a thousandth of a phase.
func blk(ctx context.Context, argv []string) (run, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, blkPatience, fmt.Errorf("no end for %v", blkPatience))
	defer cancel()
	p, err := launch(argv)
	if err != nil {
		return run{}, err
	}
	defer p.kill()
	found := run{Parts: map[string]float64{}}
	for {
		begin, began, err := p.expect(ctx, blkBegin)
		switch {
		case err != nil:
			return run{}, err
		case begin[2] != "":
			found.Value = found.Parts["rand8"]
			return found, nil
		case begin[1] == "":
			return run{}, errors.New("the guest says: " + strings.Join(strings.Fields(begin[3]+begin[4]), " "))
		}
		before := threadTimes(p.cmd.Process.Pid)
		end, ended, err := p.expect(ctx, blkEnd)
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
		if err := phaseFigures(found.Parts, end[1], operations, took, before, after); err != nil {
			return run{}, err
		}
	}
}

// phaseFigures turns so many operations in that time into the figures of a phase.
func phaseFigures(parts map[string]float64, name string, operations float64, took time.Duration, before, after []thread) error {
	if operations <= 0 || took <= 0 {
		return fmt.Errorf("%s: %v operations in %v", name, operations, took)
	}
	depth, random := strings.CutPrefix(name, "rand")
	if !random {
		parts[name] = operations * mib / 1e6 / took.Seconds()
		return nil
	}
	parts[name] = took.Seconds() * 1e6 / operations
	if used, ok := workerTime(before, after); ok {
		parts["cpu"+depth] = used.Seconds() * 1e6 / operations
	}
	return nil
}

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

const (
	diskSize = 512 << 20 // bytes; all of it stays in the host's page cache
	mib      = 1 << 20
)

// blkMetrics are the figures of a run; rand8 is its value.
var blkMetrics = []metric{
	{name: "rand1", unit: "µs", digits: 1},
	{name: "rand8", unit: "µs", digits: 1},
	{name: "cpu1", unit: "µs", digits: 1},
	{name: "cpu8", unit: "µs", digits: 1},
	{name: "read", unit: "MB/s", more: true},
	{name: "write", unit: "MB/s", more: true},
}

// newBlk compares disks: a raw image in the host's page cache, and a guest that
// bypasses its own.
func newBlk(f files) *report {
	r := &report{Bench: "blk", Unit: "µs", Digits: 1, metrics: blkMetrics, baseline: "qemu-*", Notes: []string{
		"Operations on /dev/vda with O_DIRECT, by Linux AIO in a guest of 1 vCPU and 256 MiB; raw image of 512 MiB in the host's page cache, which all rivals use.",
		"rand1, rand8: time of a random read of 4 KiB, 1 or 8 in flight. read, write: 1 MiB each, in order, 4 in flight.",
		"cpu1, cpu8: time on a processor of the VMM's threads other than vCPUs, for one operation of rand1, rand8 (/proc/PID/task/*/schedstat); - if a vCPU's thread cannot be told from others.",
	}}
	f.initrd = f.blkInitrd()
	argv := func(_ context.Context, v rival) ([]string, error) { return blkArgv(v, f) }
	r.followPhases(blkRivals(), argv, "rand8", phaseFigures)
	return r
}

func (f files) blkInitrd() string { return filepath.Join(f.results, "initrd-blk.cpio") }

// disk returns the path of the image. In the lab /tmp is an overlay, which would be
// measured too; files there are in memory in any case.
func (f files) disk() string {
	if emulated() {
		return filepath.Join("/dev/shm", filepath.Base(f.scratch)+".img")
	}
	return filepath.Join(f.scratch, "disk.img")
}

func prepareBlk(ctx context.Context, f files) error {
	return f.addProgram(ctx, "blkguest", f.blkInitrd())
}

// blkArgv returns a rival's command line, with the guest program in the kernel's, and
// makes the image if it does not exist yet.
func blkArgv(v rival, f files) ([]string, error) {
	if _, err := os.Stat(f.disk()); err != nil {
		if err := makeDisk(f.disk()); err != nil {
			return nil, err
		}
	}
	return withWords(v, f, "vmm.exec=/blkguest")
}

// makeDisk fills an image with data that no file system can store as holes or share: no
// two of its blocks are the same.
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

// phaseFigures computes the figures of a phase of blkguest.
func phaseFigures(parts map[string]float64, p phase) error {
	if p.operations <= 0 || p.took <= 0 {
		return fmt.Errorf("%s: %v operations in %v", p.name, p.operations, p.took)
	}
	depth, random := strings.CutPrefix(p.name, "rand")
	if !random {
		parts[p.name] = p.operations * mib / 1e6 / p.took.Seconds()
		return nil
	}
	parts[p.name] = p.took.Seconds() * 1e6 / p.operations
	if used, ok := workerTime(p.before, p.after); ok {
		parts["cpu"+depth] = used.Seconds() * 1e6 / p.operations
	}
	return nil
}

package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPhaseFigures(t *testing.T) {
	before := []thread{{"1", "main", 5 * time.Millisecond}, {"2", "CPU 0/KVM", time.Second}, {"9", "gone", time.Second}}
	after := []thread{{"1", "main", 7 * time.Millisecond}, {"2", "CPU 0/KVM", 3 * time.Second}, {"3", "iou-wrk-1", time.Millisecond}}
	for _, test := range []struct {
		name       string
		operations float64
		took       time.Duration
		want       map[string]float64
	}{
		{"rand1", 1000, 2 * time.Second, map[string]float64{"rand1": 2000, "cpu1": 3}},
		{"rand8", 2000, time.Second, map[string]float64{"rand8": 500, "cpu8": 1.5}},
		{"read", 100, 2 * time.Second, map[string]float64{"read": 52.4288}},
		{"write", 1, 1048576 * time.Nanosecond, map[string]float64{"write": 1000}},
	} {
		got := map[string]float64{}
		if err := phaseFigures(got, phase{test.name, test.operations, test.took, before, after}); err != nil || len(got) != len(test.want) {
			t.Errorf("%s: %v, %v", test.name, got, err)
		}
		for name, want := range test.want {
			if math.Abs(got[name]-want) > 1e-9*want {
				t.Errorf("%s: %s = %v, want %v", test.name, name, got[name], want)
			}
		}
	}
	if phaseFigures(map[string]float64{}, phase{"rand1", 0, time.Second, before, after}) == nil || phaseFigures(map[string]float64{}, phase{"rand1", 1, 0, before, after}) == nil {
		t.Error("nothing, or in no time, has figures")
	}
	// Without named vCPU threads there is no worker time either.
	if used, ok := workerTime(nil, []thread{{"1", "gokvm", time.Second}}); ok {
		t.Errorf("without a vCPU: %v", used)
	}
}

func TestVCPUNames(t *testing.T) {
	for name, want := range map[string]bool{
		"CPU 0/KVM": true, "CPU 12/KVM": true, "vcpu 0": true, "vcpu0": true,
		"vmm": false, "IO io": false, "worker": false, "iou-wrk-77": false, "not vcpu 0": false,
	} {
		if vcpu.MatchString(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// TestThreadTimes: this process has used CPU time, and the kernel says so.
func TestThreadTimes(t *testing.T) {
	var used time.Duration
	for _, th := range threadTimes(os.Getpid()) {
		used += th.used
	}
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		t.Skip(err)
	}
	if used <= 0 || used > time.Hour {
		t.Errorf("%v", used)
	}
	for _, line := range []string{"", "1 2", "x 2 3", "1 2 3 4"} {
		if _, err := parseSchedstat(line); err == nil {
			t.Errorf("%q is a line of schedstat", line)
		}
	}
}

// TestBlk follows guests that a shell plays. On a busy host the first line of a phase
// may be read late: at least half of the time must be seen.
func TestBlk(t *testing.T) {
	const good = `echo "vmm-init: up 1"; for p in rand1 rand8 read write; do echo "BENCH-BEGIN $p"; sleep 0.2; echo "BENCH-END $p 100 200000000"; done; echo BENCH-DONE`
	r, err := phases(t.Context(), []string{"/bin/sh", "-c", good}, "rand8", phaseFigures)
	if err != nil || r.Value != r.Parts["rand8"] || r.Value < 1000 || r.Parts["rand1"] < 1000 || r.Parts["read"] > 1050 || r.Parts["write"] > 1050 || r.Parts["clock"] > 2 {
		t.Errorf("%+v, %v", r, err)
	}
	for script, why := range map[string]string{
		"echo BENCH-FAILED open: no such device":                                  "no such device",
		"echo BENCH-BEGIN read; echo BENCH-FAILED read: input/output error":       "input/output error",
		"echo BENCH-BEGIN read; echo BENCH-END write 1 1":                         "in phase read",
		"echo init: text file busy; echo '[ 5.0] reboot: System halted'; sleep 1": "text file busy",
		"echo BENCH-BEGIN read":                                                   "ended",
		"echo BENCH-BEGIN read; echo BENCH-END read 0 1":                          "0 operations",
		"echo BENCH-BEGIN read; echo 'Kernel panic: sync'":                        "Kernel panic",
	} {
		if r, err := phases(t.Context(), []string{"/bin/sh", "-c", script}, "rand8", phaseFigures); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %+v, %v", script, r, err)
		}
	}
}

func TestBlkRivals(t *testing.T) {
	f := files{vmm: "/vmm", gokvm: "/gokvm", kernel: "/vmlinuz", initrd: "/initrd", scratch: t.TempDir()}
	if err := os.WriteFile(f.disk(), nil, 0o600); err != nil { // or it would be made
		t.Fatal(err)
	}
	defer os.Remove(f.disk())
	seen := map[string]bool{}
	for _, v := range blkRivals() {
		argv, err := blkArgv(v, f)
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Join(argv, " ")
		if seen[v.name] || strings.Count(all, cmdline+" ") != 1 || strings.Count(all, "vmm.exec=/blkguest") != 1 || !strings.Contains(all, f.disk()) {
			t.Errorf("%s: %s", v.name, all)
		}
		seen[v.name] = true
	}
}

// TestMakeDisk: no two of the blocks read are the same.
func TestMakeDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("512 MiB")
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := makeDisk(path); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Size() != diskSize {
		t.Fatalf("%v, %v", info, err)
	}
	seen, block := map[string]bool{}, make([]byte, 4096)
	for _, at := range []int64{0, 4096, mib, mib + 4096, diskSize - mib, diskSize - 4096} {
		if _, err := file.ReadAt(block, at); err != nil || seen[string(block)] || bytes.Count(block, []byte{0}) > 100 {
			t.Errorf("block at %d: %v", at, err)
		}
		seen[string(block)] = true
	}
}

func TestMetricTables(t *testing.T) {
	r := &report{Bench: "blk", metrics: []metric{{name: "part", unit: "µs", digits: 1}, {name: "rate", unit: "MB/s", more: true}}, baseline: "qemu-*"}
	for name, values := range map[string][2]float64{"vmm": {20, 300}, "qemu-a": {10, 200}, "qemu-b": {40, 400}} {
		r.Entries = append(r.Entries, &entry{Name: name, Runs: []run{
			{Round: 0, Value: 1, Parts: map[string]float64{"part": 1, "rate": 9999}},
			{Round: 1, Value: 1, Parts: map[string]float64{"part": values[0], "rate": values[1]}},
		}})
	}
	r.Entries = append(r.Entries, &entry{Name: "broken", Dropped: "has no disk", Runs: []run{{Failed: "x"}}})
	table := r.table()
	for _, want := range []string{
		"vmm 1 0 20.0 0 % 300 0 %", "broken 0 1 - - - -", // medians
		"vmm 2.00 0.75", "broken - -", "which is that qemu-a qemu-b", // ratios
		"broken: dropped: has no disk",
	} {
		found := false
		for line := range strings.Lines(table) {
			found = found || strings.Join(strings.Fields(line), " ") == want
		}
		if !found {
			t.Errorf("no line %q:\n%s", want, table)
		}
	}
}

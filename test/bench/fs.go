package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"vmm/guest"
	"vmm/guest/initramfs"
	"vmm/guest/kernel"
	"vmm/guest/modules"
)

// fsMetrics are the figures of a run; stat is its value.
var fsMetrics = []metric{
	{name: "read", unit: "MB/s", more: true},
	{name: "direct", unit: "MB/s", more: true},
	{name: "stat", unit: "µs"},
	{name: "open", unit: "µs"},
	{name: "create", unit: "µs"},
	{name: "cpu-stat", unit: "µs"},
}

// newFS compares shared folders, and the folder itself. Debian's cloud kernel has no
// 9p, so the guest uses the generic one.
func newFS(f files) *report {
	r := &report{Bench: "fs", Unit: "µs", metrics: fsMetrics, baseline: "qemu-q35 9p", Notes: []string{
		"A directory of the host in a guest of 1 vCPU and 256 MiB with Debian's generic kernel; its files are in the host's cache. host: the same program on the directory, without a guest.",
		"read: reads of 1 MiB in order, which the guest has dropped from its cache before; direct: the same by O_DIRECT.",
		"stat (AT_STATX_FORCE_SYNC), open with close, create with close and unlink: time of each, of 100 files in turn.",
		"cpu-stat: time on a processor of the VMM's threads other than vCPUs, for one stat.",
	}}
	f.kernel, f.initrd = f.generic("vmlinuz"), f.fsInitrd()
	argv := func(_ context.Context, v rival) ([]string, error) {
		if err := makeFolder(f.folder()); err != nil {
			return nil, err
		}
		switch v.name {
		case "host":
			return []string{f.fsguest(), "at", f.folder()}, nil
		case "vmm":
			return withWords(v, f, `vmm.exec="/fsguest at /share"`)
		}
		return withWords(v, f, `vmm.exec="/fsguest 9p folder"`)
	}
	r.followPhases(fsRivals(f), argv, "stat", fsFigures)
	return r
}

// fsRivals returns ways to share a folder. QEMU's virtio-fs needs another program, so
// it is not here.
func fsRivals(f files) []rival {
	nine := "local,id=f,security_model=none,multidevs=remap,path=" + f.folder()
	return []rival{
		{"vmm", "virtio-fs over PCI", vmm("direct", files.warm, "--volume", f.folder()+":/share")},
		{"qemu-q35 9p", "virtio-9p-pci, fsdev local, msize 1 MiB, cache=none", qemuMachine("q35", "-name", "guest,debug-threads=on",
			"-fsdev", nine, "-device", "virtio-9p-pci,fsdev=f,mount_tag=folder")},
		{"host", "the directory itself, on the host", nil},
	}
}

func (f files) fsInitrd() string { return filepath.Join(f.results, "initrd-fs.cpio") }
func (f files) fsguest() string  { return filepath.Join(filepath.Dir(f.self), "fsguest") }

// folder returns the shared folder. In the lab /tmp is an overlay, which would be
// measured too.
func (f files) folder() string {
	if emulated() {
		return filepath.Join("/dev/shm", filepath.Base(f.scratch)+".dir")
	}
	return filepath.Join(f.scratch, "folder")
}

// generic returns the path of a file of the generic kernel.
func (f files) generic(name string) string {
	return filepath.Join(filepath.Dir(filepath.Dir(f.kernel)), "generic", name)
}

// makeFolder makes and fills the folder, if it does not exist yet.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), []byte("text"), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "large"), bytes.Repeat([]byte("content "), 64*mib/8), 0o644)
}

// prepareFS builds the guest program and an initramfs with it and the drivers of 9p.
func prepareFS(ctx context.Context, f files) error {
	k, err := kernel.Fetch(ctx, "generic")
	if err != nil {
		return err
	}
	if f.initrd, err = guest.Build(ctx, "generic"); err != nil {
		return err
	}
	if err := f.addProgram(ctx, "fsguest", f.fsInitrd()); err != nil {
		return err
	}
	tree, err := modules.Open(k.Modules)
	if err != nil {
		return err
	}
	order, err := tree.Order("9pnet_virtio", "9p")
	if err != nil {
		return err
	}
	archive, err := initramfs.Read(f.fsInitrd())
	if err != nil {
		return err
	}
	var list bytes.Buffer
	for _, m := range order {
		object, err := modules.ReadFile(m.Path)
		if err != nil {
			return err
		}
		archive.File("lib/modules/"+m.Name+".ko", 0o644, object)
		fmt.Fprintln(&list, m.Name)
	}
	archive.File("lib/modules/fsguest", 0o644, list.Bytes())
	return archive.WriteFile(f.fsInitrd())
}

// fsFigures computes the figures of a phase of fsguest.
func fsFigures(parts map[string]float64, p phase) error {
	if p.operations <= 0 || p.took <= 0 {
		return fmt.Errorf("%s: %v operations in %v", p.name, p.operations, p.took)
	}
	each := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / p.operations }
	if slices.Contains([]string{"read", "direct"}, p.name) {
		parts[p.name] = p.operations * mib / 1e6 / p.took.Seconds()
		return nil
	}
	parts[p.name] = each(p.took)
	if used, ok := workerTime(p.before, p.after); ok && p.name == "stat" {
		parts["cpu-stat"] = each(used)
	}
	return nil
}

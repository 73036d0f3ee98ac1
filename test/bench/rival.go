package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"vmm/test/lab/qemu"
)

// cmdline is the guest kernel's command line, the same for all: vmm's default without
// the frequency of the time-stamp counter, which no rival passes there.
const cmdline = "console=ttyS0 panic=-1"

// files are the programs to measure and what they boot.
type files struct {
	vmm, gokvm, self, pio string // programs
	kernel, vmlinux       string // the same kernel, packed and not
	initrd                string
	source                string // folder of this package
	results               string // folder
	scratch               string // folder that is removed at the end
}

// warm returns the cache that has the kernel.
func (f files) warm() string { return filepath.Join(f.scratch, "warm") }

// rival is one way to run the guest, with one vCPU.
type rival struct {
	name string
	note string
	argv func(f files, mib int) ([]string, error)
}

// rivals returns all ways to boot that are compared, each in its best configuration
// except as its note says. The names before the first blank group them.
func rivals() []rival {
	return []rival{
		{"vmm", "the unpacked kernel is mapped from the cache", vmm("direct", files.warm)},
		{"vmm copied", "--copy-kernel: it is read instead", vmm("direct", files.warm, "--copy-kernel")},
		{"vmm cold", "the cache is empty: vmm unpacks the kernel, and writes the cache while the guest boots", vmm("direct", cold)},
		{"vmm bzimage", "the guest unpacks its kernel", vmm("bzimage", noCache)},
		{"qemu-microvm", "ACPI, SeaBIOS", qemuMachine("microvm,acpi=on")},
		{"qemu-microvm qboot", "ACPI, qboot, no option ROMs, no PIT, PIC or RTC",
			qemuMachine("microvm,acpi=on,x-option-roms=off,pit=off,pic=off,rtc=off", "-bios", "qboot.rom")},
		{"qemu-microvm noacpi", "ACPI off, qboot; the kernel finds no I/O APIC", qemuMachine("microvm,acpi=off")},
		{"qemu-microvm pvh", "ACPI; the kernel is given unpacked, and entered by PVH", vmlinux(qemuMachine("microvm,acpi=on"))},
		{"qemu-q35", "", qemuMachine("q35")},
		{"gokvm", "without these words more on the command line it does not boot: " + gokvmNeeds + "; with them its guest's clock is wrong, and so is what its kernel counts", gokvm},
	}
}

func noCache(files) string { return "" }

// cold returns a cache that does not exist yet.
func cold(f files) string {
	dir := filepath.Join(f.scratch, "cold")
	os.RemoveAll(dir) // vmm would find what is left of it
	return dir
}

func vmm(mode string, cache func(files) string, more ...string) func(files, int) ([]string, error) {
	return func(f files, mib int) ([]string, error) {
		if !slices.Contains(more, "--net") {
			more = append(more, "--net", "none")
		}
		return append([]string{f.vmm, "run", "--kernel", f.kernel, "--initrd", f.initrd, "--cmdline", cmdline,
			"--memory", fmt.Sprintf("%dM", mib), "--cpus", "1", "--boot", mode, "--kernel-cache", cache(f)}, more...), nil
	}
}

func qemuMachine(machine string, more ...string) func(files, int) ([]string, error) {
	return func(f files, mib int) ([]string, error) {
		program, err := qemu.Find(context.Background())
		if err != nil {
			return nil, err
		}
		return append(append(program.Argv, "-M", machine, "-accel", "kvm", "-cpu", "host", "-m", strconv.Itoa(mib), "-smp", "1",
			"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
			"-kernel", f.kernel, "-initrd", f.initrd, "-append", cmdline), more...), nil
	}
}

// vmlinux gives a rival the unpacked kernel.
func vmlinux(argv func(files, int) ([]string, error)) func(files, int) ([]string, error) {
	return func(f files, mib int) ([]string, error) {
		if f.vmlinux == "" {
			return nil, fmt.Errorf("no unpacked kernel")
		}
		f.kernel = f.vmlinux
		return argv(f, mib)
	}
}

// gokvmLeast is the least memory that gokvm accepts: it puts the initrd at 240 MiB.
const gokvmLeast = 256 // MiB

// gokvmNeeds are the words of gokvm's own default command line that the kernel needs:
// gokvm has no ACPI, no I/O APIC for Linux, and no PIT to calibrate the time-stamp
// counter.
const gokvmNeeds = "noapic noacpi notsc lapic tsc_early_khz=2000 pci=realloc=off"

func gokvm(f files, mib int) ([]string, error) {
	if mib < gokvmLeast {
		return nil, fmt.Errorf("gokvm: %d MiB are too few: the initrd lies at 240 MiB", mib)
	}
	return []string{f.gokvm, "boot", "-k", f.kernel, "-i", f.initrd, "-m", fmt.Sprintf("%dM", mib), "-c", "1", "-p", cmdline + " " + gokvmNeeds}, nil
}

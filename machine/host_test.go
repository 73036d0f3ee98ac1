package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vmm/kvm"
)

// TestOpenKVM opens paths that are not KVM.
func TestOpenKVM(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/absent": "does not exist; load the module kvm_intel or kvm_amd",
		file:            "is not the KVM device; see what made it",
		fifo:            "is not the KVM device; see what made it",
		"/dev/null":     "is not the KVM device; see what made it",
		dir:             "is a directory; see the kernel's log",
	} {
		var host *HostError
		if sys, err := OpenKVM(path); sys != nil || !errors.As(err, &host) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", path, err, want)
		}
	}
}

// TestOpenError checks messages for errors that a test cannot provoke everywhere.
func TestOpenError(t *testing.T) {
	failed := func(err error) error { return &fs.PathError{Op: "open", Path: "/dev/kvm", Err: err} }
	for _, test := range []struct {
		err  error
		want string
	}{
		{failed(syscall.EACCES), "no permission to open /dev/kvm; join the group "},
		{failed(syscall.EPERM), "no permission to open /dev/kvm; join the group "},
		{failed(syscall.ENODEV), "/dev/kvm has no driver; load the module kvm_intel or kvm_amd"},
		{failed(syscall.ENXIO), "/dev/kvm has no driver; load the module kvm_intel or kvm_amd"},
		{failed(syscall.EMFILE), "open /dev/kvm: too many open files; see the kernel's log (dmesg)"},
		{fmt.Errorf("/dev/kvm: %w", &kvm.VersionError{Version: 10}),
			"/dev/kvm: KVM API version 10, not 12; this host's kernel is too old or not Linux's KVM: use Linux 4.13 or later"},
	} {
		if got := openError("/dev/kvm", test.err).Error(); !strings.HasPrefix(got, test.want) || strings.Contains(got, "\n") {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}

func TestMissingCaps(t *testing.T) {
	if got := missingCaps(func(kvm.Cap) int { return 1 }); got != "" {
		t.Errorf("nothing is missing, but %q", got)
	}
	got := missingCaps(func(c kvm.Cap) int {
		if c == kvm.CapIRQFD || c == kvm.CapImmediateExit {
			return 0
		}
		return 1
	})
	if want := "KVM_CAP_IRQFD, KVM_CAP_IMMEDIATE_EXIT"; got != want {
		t.Errorf("missing: %q, want %q", got, want)
	}
}

func TestMaxVCPUs(t *testing.T) {
	for _, test := range []struct{ most, recommended, want int }{
		{0, 0, 4}, {0, 8, 8}, {2, 8, 2}, {64, 8, 64}, {1024, 8, MaxCPUs},
	} {
		got := maxVCPUs(func(c kvm.Cap) int {
			if c == kvm.CapMaxVCPUs {
				return test.most
			}
			return test.recommended
		})
		if got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
}

func TestHardwareFlag(t *testing.T) {
	for text, want := range map[string]string{
		"flags\t\t: fpu vmx ept\n": "vmx", "processor: 0\nflags: svm\n": "svm", "flags: fpu\nvmx flags: vnmi\n": "", "": "", "flags": "",
	} {
		path := filepath.Join(t.TempDir(), "cpuinfo")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := HardwareFlag(path); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	if _, err := HardwareFlag(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
}

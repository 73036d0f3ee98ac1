package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/machine"
)

// TestSignalUnread: one signal ends vmm when nobody reads what the guest, which
// has powered off, has printed. (That vmm waits for a reader otherwise is in
// testdata/script/output.txt.)
func TestSignalUnread(t *testing.T) {
	sys, err := machine.OpenKVM(machine.KVMDevice)
	if err != nil {
		t.Skip(err)
	}
	sys.Close()
	dir := t.TempDir()
	kernel, log := filepath.Join(dir, "kernel"), filepath.Join(dir, "log")
	if err := os.WriteFile(kernel, kernels()["prints-more"], 0o600); err != nil {
		t.Fatal(err)
	}
	stderr, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "vmm", "run", "--kernel", kernel, "--log-level", "debug")
	cmd.Stdout, cmd.Stderr = w, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(20 * time.Second)
	said := func(text string) bool {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(b, []byte(text))
	}
	for !said("msg=ended") {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatal("the guest does not end")
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("vmm has not waited for its reader: %v", err)
	default:
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the guest powered off, but: %v", err)
		}
	case <-deadline:
		t.Fatal("vmm goes on")
	}
	if !said("the host did not read the last") {
		t.Error("vmm does not say that something was lost")
	}
}

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
	"vmm/test/allow"
)

// unread is a vmm whose output nobody reads.
type unread struct {
	*exec.Cmd
	log string // path of its standard error
}

func startUnread(t *testing.T) *unread {
	t.Helper()
	dir := t.TempDir()
	kernel, log := filepath.Join(dir, "kernel"), filepath.Join(dir, "log")
	if err := os.WriteFile(kernel, kernels()["prints-more"], 0o600); err != nil {
		t.Fatal(err)
	}
	stderr, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stderr.Close(); r.Close(); w.Close() })
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "vmm", "run", "--kernel", kernel, "--log-level", "debug")
	cmd.Stdout, cmd.Stderr = w, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &unread{cmd, log}
}

// said tells whether it has logged the text.
func (u *unread) said(t *testing.T, text string) bool {
	t.Helper()
	b, err := os.ReadFile(u.log)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(text))
}

// TestSignalUnread: one signal ends vmm when nobody reads what the guest, which
// has powered off, has printed. (That vmm waits for a reader otherwise is in
// testdata/script/output.txt.)
func TestSignalUnread(t *testing.T) {
	sys, err := machine.OpenKVM(machine.KVMDevice)
	if err != nil {
		t.Skip(err)
	}
	sys.Close()
	u := startUnread(t)
	ended := make(chan error, 1)
	go func() { ended <- u.Wait() }()
	deadline := time.After(allow.Time(20 * time.Second))
	for !u.said(t, `msg="the guest ended"`) {
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
	u.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the guest powered off, but: %v", err)
		}
	case <-deadline:
		t.Fatal("vmm goes on")
	}
	if !u.said(t, "the host did not read the last") {
		t.Error("vmm does not say that something was lost")
	}
}

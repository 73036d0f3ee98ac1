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

// unread is a vmm whose output has no reader.
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

// said reports whether it has logged the text.
func (u *unread) said(t *testing.T, text string) bool {
	t.Helper()
	b, err := os.ReadFile(u.log)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(text))
}

// TestSignalUnread: the guest has powered off and its output is unread: one signal ends
// vmm. (testdata/script/output.txt tests that vmm otherwise waits for a reader.)
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

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/machine"
)

// TestSignalUnread: a signal ends vmm although nobody reads what the guest, which
// has powered off, has printed. (That it waits for a reader otherwise is in
// testdata/script/output.txt.)
func TestSignalUnread(t *testing.T) {
	sys, err := machine.OpenKVM(machine.KVMDevice)
	if err != nil {
		t.Skip(err)
	}
	sys.Close()
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, kernels()["prints-more"], 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "vmm", "run", "--kernel", kernel)
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for full := false; !full; {
		fds := []unix.PollFd{{Fd: int32(w.Fd()), Events: unix.POLLOUT}}
		if _, err := unix.Poll(fds, 0); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		full = fds[0].Revents&unix.POLLOUT == 0
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatalf("nothing fills the pipe:\n%s", &stderr)
		}
	}
	w.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for again := true; again; {
		// A second one, if the first came before the guest's end.
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
			again = false
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatal("vmm goes on")
		}
	}
	if want := "the host did not read the last"; !strings.Contains(stderr.String(), want) {
		t.Errorf("it does not say %q:\n%s", want, &stderr)
	}
}

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmm/machine"
)

// TestCloseOnExec: it works even if the kernel has no close_range.
func TestCloseOnExec(t *testing.T) {
	for name, f := range map[string]func(first int){
		"close_range": closeOnExec,
		"a list":      func(first int) { eachDescriptor(first, unix.CloseOnExec) },
	} {
		var fds [2]int // one to be closed, above one that stays
		if err := unix.Pipe2(fds[:], 0); err != nil {
			t.Fatal(err)
		}
		low, high := min(fds[0], fds[1]), max(fds[0], fds[1])
		f(high)
		for fd, want := range map[int]int{low: 0, high: unix.FD_CLOEXEC} {
			if got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || got != want {
				t.Errorf("%s: descriptor %d, from %d on: flags %d, %v; want %d", name, fd, high, got, err, want)
			}
			unix.Close(fd)
		}
	}
}

// TestReaderGone: a command whose reader has left writes no more. One that only prints
// says nothing about it. Any other still does the rest of its work.
func TestReaderGone(t *testing.T) {
	dir := t.TempDir()
	type call struct {
		args   []string
		out    bool // standard output has no reader; else standard error
		status int
		says   string
	}
	calls := []call{
		{[]string{"ps"}, true, 141, ""},
		{[]string{"ps", "--format", "json"}, true, 0, ""}, // nothing to print
		{[]string{"help"}, true, 0, ""},
		{[]string{"pause", "no-one"}, false, exitNotFound, ""},
		{[]string{"run", "--kernel", filepath.Join(dir, "none"), "--log-level", "debug"}, false, exitInput, ""},
	}
	if sys, err := machine.OpenKVM(machine.KVMDevice); err == nil {
		sys.Close()
		kernel := filepath.Join(dir, "kernel")
		if err := os.WriteFile(kernel, kernels()["powers-off"], 0o600); err != nil {
			t.Fatal(err)
		}
		for _, out := range []bool{false, true} { // log lines at its start and end, and the guest's output
			calls = append(calls, call{[]string{"run", "--kernel", kernel, "--log-level", "debug"}, out, exitPowerOff, "broken pipe"})
		}
	}
	for _, test := range calls {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		var said bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "vmm", append(test.args, "--runtime-dir", dir)...)
		if cmd.Stderr = w; test.out {
			cmd.Stdout, cmd.Stderr = w, &said
		}
		err = cmd.Run()
		w.Close()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != test.status || test.out && !strings.Contains(said.String(), test.says) || test.says == "" && said.Len() > 0 {
			t.Errorf("%v: status %d (%v), says %q; want %d, %q", test.args, got, cmd.ProcessState, &said, test.status, test.says)
		}
	}
}

// TestFirstThread: the first thread, whose name is the process's, runs only main, so no
// vCPU goroutine is ever on it.
func TestFirstThread(t *testing.T) {
	const many = 64
	threads, done := make(chan int), make(chan struct{})
	defer close(done)
	for range many {
		go func() {
			runtime.LockOSThread()
			threads <- unix.Gettid()
			<-done // otherwise the next would reuse this thread
		}()
	}
	for range many {
		if tid := <-threads; tid == os.Getpid() {
			t.Error("a goroutine is on the first thread")
		}
	}
}

package vmm_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"vmm/test/allow"
)

// depsHost is a host that lacks iasl, where apt-get only records its arguments.
func depsHost(t *testing.T) (path, asked string) {
	path, asked = t.TempDir(), filepath.Join(t.TempDir(), "asked")
	fakes := map[string]string{"apt-get": `echo "$@" >>` + asked, "id": "echo 0"}
	for _, name := range strings.Fields("go gcc git qemu-system-x86_64 ip mmdebstrap mke2fs ssh iperf3") {
		fakes[name] = ":"
	}
	for name, does := range fakes {
		if err := os.WriteFile(filepath.Join(path, name), []byte("#!/bin/sh\n"+does+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"env", "dirname"} {
		real, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(real, filepath.Join(path, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return path, asked
}

// TestDeps: `make run` and `make test` say what they will install, and ask a person at
// a terminal.
func TestDeps(t *testing.T) {
	const question = "[Y/n] "
	for _, test := range []struct {
		name     string
		env      string
		terminal bool
		answer   string // "" if no question is expected
		installs bool
	}{
		{"no terminal", "A=", false, "", true},
		{"continuous integration", "CI=true", true, "", true},
		{"return", "CI=", true, "\n", true},
		{"yes", "A=", true, "Yes\n", true},
		{"no", "A=", true, "n\n", false},
		{"something else", "A=", true, "what?\n", false},
		{"end of file", "A=", true, "\x04", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			path, asked := depsHost(t)
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "test/deps.sh")
			cmd.Env = []string{"PATH=" + path, test.env}
			said, err := runDeps(cmd, test.terminal, question, test.answer)
			if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			calls, _ := os.ReadFile(asked)
			if (err == nil) != test.installs || (len(calls) > 0) != test.installs {
				t.Errorf("%v; apt-get was asked %q", err, calls)
			}
			if test.installs && !slices.ContainsFunc(strings.Split(string(calls), "\n"), func(call string) bool {
				return strings.Contains(call, " install ") && strings.Contains(call, " acpica-tools")
			}) {
				t.Errorf("apt-get was asked %q", calls)
			}
			if !strings.Contains(said, " acpica-tools") || strings.Contains(said, question) != (test.answer != "") {
				t.Errorf("it says %q", said)
			}
			if !test.installs && !strings.Contains(said, "nothing is installed") {
				t.Errorf("it says %q", said)
			}
		})
	}
}

// runDeps runs cmd, on a terminal if terminal is true, and types the answer once cmd
// has asked the question. It returns cmd's output.
func runDeps(cmd *exec.Cmd, terminal bool, question, answer string) (said string, err error) {
	if !terminal {
		b, err := cmd.CombinedOutput()
		return string(b), err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	screen, err := pty.Start(cmd)
	if err != nil {
		return "", err
	}
	defer screen.Close()
	screen.SetReadDeadline(time.Now().Add(allow.Time(30 * time.Second)))
	b := make([]byte, 1024)
	for {
		n, readErr := screen.Read(b)
		said += string(b[:n])
		if answer != "" && strings.HasSuffix(said, question) {
			if _, err := io.WriteString(screen, answer); err != nil {
				return said, err
			}
			answer = ""
		}
		if errors.Is(readErr, os.ErrDeadlineExceeded) {
			cmd.Process.Kill()
			cmd.Wait()
			return said, fmt.Errorf("it does not end, after %q", said)
		}
		if readErr != nil { // no process has the terminal open any more
			return said, cmd.Wait()
		}
	}
}

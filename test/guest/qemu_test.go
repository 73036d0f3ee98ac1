package guest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vmm/guest"
	"vmm/guest/kernel"
	"vmm/test/allow"
	"vmm/test/lab/qemu"
)

// patience is the deadline of every wait for the emulated guest.
var patience = allow.Time(60 * time.Second)

// session is a guest emulated by QEMU, and its serial console.
type session struct {
	t       *testing.T
	keys    io.Writer
	console chan []byte // closed when QEMU ends
	said    bytes.Buffer
	qmp     string
	ended   chan error
}

// boot starts a guest with the initramfs for the kernel.
func boot(t *testing.T, kernelName, cmdline string, devices ...string) *session {
	t.Helper()
	emulated(t)
	t.Parallel()
	initrd, err := guest.Build(t.Context(), kernelName)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Find(kernelName)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, console: make(chan []byte, 64), ended: make(chan error, 1), qmp: filepath.Join(t.TempDir(), "qmp")}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	program, err := qemu.Find(ctx)
	if err != nil {
		t.Fatal(err)
	}
	arguments := []string{"-accel", "tcg", "-cpu", "max", "-m", "512", "-M", "q35", "-nodefaults", "-no-user-config",
		"-display", "none", "-no-reboot", "-serial", "stdio", "-qmp", "unix:" + s.qmp + ",server=on,wait=off",
		"-kernel", k.Image, "-initrd", initrd, "-append", "console=ttyS0 panic=-1 " + cmdline}
	qemu := exec.CommandContext(ctx, program.Argv[0], slices.Concat(program.Argv[1:], arguments, devices)...)
	out, in := io.Pipe()
	qemu.Stdout, qemu.Stderr = in, in
	if s.keys, err = qemu.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		err := qemu.Wait()
		in.Close()
		s.ended <- err
	}()
	go func() {
		defer close(s.console)
		for {
			p := make([]byte, 4096)
			n, err := out.Read(p)
			if err != nil {
				return
			}
			s.console <- p[:n]
		}
	}()
	return s
}

// expect waits until the console prints text, and discards the output up to its end.
func (s *session) expect(text string) {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		if _, rest, ok := strings.Cut(s.said.String(), text); ok {
			s.said.Reset()
			s.said.WriteString(rest)
			return
		}
		select {
		case p, ok := <-s.console:
			if !ok {
				s.t.Fatalf("the guest ended before it said %q; since the last match it said:\n%s", text, s.said.String())
			}
			s.said.Write(p)
		case <-deadline:
			s.t.Fatalf("the guest does not say %q; since the last match it said:\n%s", text, s.said.String())
		}
	}
}

// typed types at the prompt.
func (s *session) typed(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.keys, text); err != nil {
		s.t.Fatal(err)
	}
}

// end waits for QEMU to end and returns its exit status.
func (s *session) end() int {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case p := <-s.console:
			s.said.Write(p)
		case err := <-s.ended:
			if exit, ok := err.(*exec.ExitError); ok {
				return exit.ExitCode()
			} else if err != nil {
				s.t.Fatal(err)
			}
			return 0
		case <-deadline:
			s.t.Fatalf("the guest does not end; it said:\n%s", s.said.String())
		}
	}
}

// pressPowerButton presses the power button by QMP.
func (s *session) pressPowerButton() {
	s.t.Helper()
	c, err := net.Dial("unix", s.qmp)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintln(c, `{"execute":"qmp_capabilities"}{"execute":"system_powerdown"}`); err != nil {
		s.t.Fatal(err)
	}
}

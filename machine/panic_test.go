package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"vmm/console"
	"vmm/guest/payload"
	"vmm/task"
)

// broken is a device with a bug.
type broken struct{}

func (broken) Read(uint64, []byte)  { panic("broken device") }
func (broken) Write(uint64, []byte) { panic("broken device") }

// TestPanic: a panic on a vCPU's thread ends the machine with an error, and
// whoever ran it can restore the terminal.
func TestPanic(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, payload.ELF(payload.Code(payload.Out8(0x700, 1), payload.Spin())), 0o600); err != nil {
		t.Fatal(err)
	}
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	defer tty.Close()
	mode := func() unix.Termios {
		tio, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return *tio
	}
	found := mode()
	con, err := console.Open("stdio", console.Options{Stdin: tty, Stdout: tty})
	if err != nil {
		t.Fatal(err)
	}
	defer con.Close()
	if mode() == found {
		t.Fatal("the terminal is not raw")
	}
	m, err := New(Config{Kernel: path, CPUs: 2, Memory: 32 << 20, ConsoleIn: con, ConsoleOut: con})
	if host := (*HostError)(nil); errors.As(err, &host) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.devices.ports.Map(0x700, 1, broken{}); err != nil {
		t.Fatal(err)
	}
	_, err = m.Run(t.Context())
	var bug *task.PanicError
	if !errors.As(err, &bug) || bug.Value != "broken device" || !strings.Contains(string(bug.Stack), "broken.Write") {
		t.Fatalf("the end: %v", err)
	}
	if con.Close(); mode() != found {
		t.Error("the terminal is not restored")
	}
}

package l1

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vmm/test/allow"
	"vmm/test/lab/wire"
)

// shell returns a job that a shell runs.
func shell(script string) wire.Job {
	return wire.Job{Argv: []string{"sh", "-c", script}, Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "A=b"}, Timeout: time.Minute}
}

// TestL1 boots a real L1 once and does all that the lab does with it.
func TestL1(t *testing.T) {
	if os.Getenv("VMM_EMULATED") == "" {
		t.Skip("takes a minute: 'make emulated' runs it")
	}
	out := t.TempDir()
	m, err := Start(t.Context(), Config{Memory: 1024, Out: out, Log: filepath.Join(out, "console")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	t.Logf("up by its own clock after %v", m.Up.Uptime)

	t.Run("jobs", func(t *testing.T) { testJobs(t, m) })
	t.Run("input", func(t *testing.T) { testInput(t, m) })
	t.Run("files", func(t *testing.T) { testFiles(t, m, out) })
	t.Run("deadline", func(t *testing.T) { testDeadline(t, m) })
	t.Run("lost", func(t *testing.T) { testLost(t, m) }) // must be last: it stops QEMU
}

func testJobs(t *testing.T, m *Machine) {
	terminal := shell("test -t 0 && stty size")
	terminal.Terminal = &wire.Size{Rows: 33, Cols: 77}
	for _, test := range []struct {
		job           wire.Job
		output, error string
		status        int
	}{
		{shell("echo out; echo err >&2; exit 7"), "out\n", "err\n", 7},
		{shell("kill -9 $$"), "", "", 137},
		{shell("echo $A; pwd; id -u"), "b\n/\n0\n", "", 0},
		{shell("grep -qw svm /proc/cpuinfo && test -c /dev/kvm && test -c /dev/net/tun && test -c /dev/vhost-net"), "", "", 0},
		{shell("cat /sys/module/kvm_amd/parameters/npt"), "Y\n", "", 0},
		{shell("cat /sys/class/net/lo/flags"), "0x9\n", "", 0},
		{terminal, "33 77\r\n", "", 0},
		{shell("sleep 1000 & echo $! >/tmp/orphan"), "", "", 0},
		{shell("test -s /tmp/orphan && ! kill -0 $(cat /tmp/orphan) 2>/dev/null"), "", "", 0},
		{wire.Job{Argv: []string{"no-such-command"}, Dir: "/"}, "", "", 127},
		{wire.Job{Argv: []string{"/etc/passwd"}, Dir: "/"}, "", "", 127},
	} {
		var output, stderr bytes.Buffer
		exit, err := m.Run(t.Context(), test.job, Streams{Output: &output, Error: &stderr})
		if err != nil {
			t.Fatalf("%v: %v", test.job.Argv, err)
		}
		if exit.Status != test.status || output.String() != test.output || stderr.String() != test.error || (exit.Why != "") != (test.status == 127) {
			t.Errorf("%v: %+v, %q, %q", test.job.Argv, exit, output.String(), stderr.String())
		}
	}
}

// testInput sends more than any buffer on the way holds, and expects it back.
func testInput(t *testing.T, m *Machine) {
	sent := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(sent)
	var got bytes.Buffer
	exit, err := m.Run(t.Context(), shell("cat"), Streams{Input: bytes.NewReader(sent), Output: &got})
	if err != nil || exit.Status != 0 || !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%+v, %v: %d of %d bytes came back", exit, err, got.Len(), len(sent))
	}
	// A job need not read its input.
	exit, err = m.Run(t.Context(), shell("exit 3"), Streams{Input: bytes.NewReader(sent)})
	if err != nil || exit.Status != 3 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// testFiles: results come out of L1, all else stays inside.
func testFiles(t *testing.T, m *Machine, out string) {
	here := t.TempDir()
	if err := os.WriteFile(filepath.Join(here, "seen"), []byte("outside\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	j := shell("cat seen; echo inside >seen; cat seen; echo result >" + out + "/result")
	j.Dir = here
	exit, err := m.Run(t.Context(), j, Streams{Output: &said, Error: &said})
	if err != nil || exit.Status != 0 || said.String() != "outside\ninside\n" {
		t.Errorf("%+v, %v: %q", exit, err, said.String())
	}
	if b, err := os.ReadFile(filepath.Join(here, "seen")); err != nil || string(b) != "outside\n" {
		t.Errorf("a write in L1 reached this host: %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(out, "result")); err != nil || string(b) != "result\n" {
		t.Errorf("result: %q, %v", b, err)
	}
}

func testDeadline(t *testing.T, m *Machine) {
	j := shell("trap '' TERM INT; while :; do sleep 1000; done")
	j.Timeout = allow.Time(2 * time.Second) // time for it to set its trap
	var late *TimeoutError
	if exit, err := m.Run(t.Context(), j, Streams{}); !errors.As(err, &late) || exit.Status != 137 {
		t.Errorf("%+v, %v", exit, err)
	}
	// L1 still works.
	if exit, err := m.Run(t.Context(), shell("true"), Streams{}); err != nil || exit.Status != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// testLost stops QEMU: seen from the host, L1 has stalled.
func testLost(t *testing.T, m *Machine) {
	m.silent = 3 * time.Second
	if err := m.qemu.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(t.Context(), shell("true"), Streams{}); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "no sign of life") {
		t.Error(err)
	}
	if _, err := m.Run(t.Context(), shell("true"), Streams{}); !errors.Is(err, ErrLost) {
		t.Error(err)
	}
}

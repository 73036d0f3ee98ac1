package console

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// sized runs f under a process limit on file size, which stands for a full disk.
func sized(t *testing.T, bytes uint64, f func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &was)
	f()
}

// TestFullDisk: a full disk loses output but does not end it. Once there is room the file
// continues, and says what is missing.
func TestFullDisk(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	for _, spec := range []string{"file:" + name, "stdio"} {
		t.Run(spec[:4], func(t *testing.T) {
			out, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			in, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			told := 0
			c := open(t, spec, Options{Stdin: in, Stdout: out, Full: func(err error) {
				if told++; !errors.Is(err, unix.EFBIG) {
					t.Error(err)
				}
			}})
			if err := c.Begin(); err != nil {
				t.Fatal(err)
			}
			write := func(text string) {
				t.Helper()
				if n, err := io.WriteString(c, text); n != len(text) || err != nil {
					t.Errorf("%q: %d, %v", text, n, err)
				}
			}
			write("hello ")
			sized(t, 10, func() {
				write("my dear")
				write("friend")
			})
			write("again")
			const want = "hello my d\r\n[vmm: 9 bytes of output are missing here]\r\nagain"
			if b, err := os.ReadFile(name); string(b) != want || err != nil {
				t.Errorf("%q, %v; want %q", b, err, want)
			}
			if told != 1 {
				t.Errorf("told of %d times", told)
			}
		})
	}
}

package unixsock

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("a second listener: %v", err)
	}
	l.SetUnlinkOnClose(false) // as by a kill
	l.Close()
	if l, err = Listen(path); err != nil {
		t.Fatalf("over the socket of a dead process: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	l.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("after the end: %v", err)
	}
}

func TestListenBad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                             "is not a socket",
		strings.Repeat("x", MaxPath+1):   "longer than 107 bytes",
		filepath.Join(file, "below"):     "not a directory",
		filepath.Join(file+"s", "below"): "no such file or directory",
	} {
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// TestNoAbstractName: a path that begins with @ is a file's, too.
func TestNoAbstractName(t *testing.T) {
	t.Chdir(t.TempDir())
	l, err := Listen("@s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := os.Stat("@s"); err != nil {
		t.Error(err)
	}
}

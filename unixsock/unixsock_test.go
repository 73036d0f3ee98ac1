package unixsock

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
	l.UnixListener.Close() // as by a kill
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

// TestNoAbstractName: a path that begins with @ also names a file.
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

// TestStaleLink: a link in the socket's place is neither followed nor removed. Neither is
// the socket of another user's dead process.
func TestStaleLink(t *testing.T) {
	t.Chdir(t.TempDir())
	dead, err := Listen("dead")
	if err != nil {
		t.Fatal(err)
	}
	dead.UnixListener.Close()
	if err := os.Symlink("dead", "link"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"link": "is not a socket"}
	if os.Geteuid() == 0 {
		if err := errors.Join(unix.Mknod("theirs", unix.S_IFSOCK|0o600, 0), os.Chown("theirs", 1234, 1234)); err != nil {
			t.Fatal(err)
		}
		want["theirs"] = "a socket of user 1234"
	}
	for path, text := range want {
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", path, err, text)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat("dead"); err != nil {
		t.Error(err)
	}
}

// TestCloseRemovesItsOwn: Close removes the listener's own file, wherever its directory is
// by then.
func TestCloseRemovesItsOwn(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.Mkdir("d", 0o700), os.Mkdir("e", 0o700), os.WriteFile("e/s", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	var l [2]*Listener
	for i, path := range []string{"d/s", "d/t"} {
		var err error
		if l[i], err = Listen(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Rename("d", "away"), os.Symlink("e", "d"), os.Remove("away/t"), os.WriteFile("away/t", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l[0].Close(), l[1].Close()); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]bool{"away/s": false, "away/t": true, "e/s": true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

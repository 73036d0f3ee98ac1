package initramfs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmm/guest/initramfs"
)

func sample() *initramfs.Archive {
	a := new(initramfs.Archive)
	a.File("lib/modules/x.ko", 0o644, []byte("old"))
	a.File("lib/modules/x.ko", 0o644, []byte("new"))
	a.Link("bin/sh", "../init")
	a.Directory("lib", 0o755)
	a.CharDevice("dev/console", 0o600, 5, 1)
	return a
}

func bytesOf(t *testing.T, a *initramfs.Archive) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := a.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestArchive(t *testing.T) {
	b := bytesOf(t, sample())
	// Each name once, and directories before their contents.
	last := -1
	for _, name := range []string{"lib\x00", "lib/modules\x00", "lib/modules/x.ko\x00", "bin\x00", "bin/sh\x00", "dev\x00", "dev/console\x00", "TRAILER!!!\x00"} {
		at := bytes.Index(b, []byte(name))
		if at <= last || bytes.Count(b, []byte("\x00\x00"+name))+bytes.Count(b, []byte("00000000"+name)) > 1 {
			t.Errorf("%q is at %d, behind %d", name, at, last)
		}
		last = at
	}
	if bytes.Contains(b, []byte("old")) || !bytes.Contains(b, []byte("new")) {
		t.Error("a file was not replaced")
	}
	if !bytes.Equal(b, bytesOf(t, sample())) {
		t.Error("the same content gave other bytes")
	}
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.cpio")
	if err := sample().WriteFile(path); err != nil {
		t.Fatal(err)
	}
	a, err := initramfs.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := os.ReadFile(path)
	if got := bytesOf(t, a); !bytes.Equal(got, want) {
		t.Error("an archive that was read is written differently")
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestReadBad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(path, []byte("07070"+strings.Repeat("z", 300)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + "none"} {
		if _, err := initramfs.Read(p); err == nil {
			t.Errorf("Read(%s) succeeded", p)
		}
	}
}

package hostsock

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStrangers: a guest's call reaches only a socket under the port's own name, and
// nothing to which that name was redirected.
func TestStrangers(t *testing.T) {
	h, _ := start(t)
	dir := filepath.Dir(h.path)
	at := func(name string) string { return filepath.Join(dir, name) }
	listen := func(path string) {
		t.Helper()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	for _, path := range []string{at("other"), at("two"), at("s_1"), at("s_5")} {
		listen(path)
	}
	errs := []error{
		os.Symlink("other", at("s_2")), os.Link(at("two"), at("s_3")), os.WriteFile(at("s_4"), nil, 0o600), os.Mkdir(at("s_7"), 0o700),
	}
	want := map[uint32]string{2: "not a socket", 3: "second name", 4: "not a socket", 6: "no such file", 7: "not a socket"}
	if os.Geteuid() == 0 {
		errs = append(errs, os.Chown(at("s_5"), 1234, 1234))
		want[5] = "a socket of user 1234"
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for port, text := range want {
		if _, err := h.Dial(port, newEnd()); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("port %d: %v, want %q", port, err, text)
		}
	}
	// Whatever happens to the directory's name.
	away, elsewhere := dir+".away", t.TempDir()
	if err := errors.Join(os.Rename(dir, away), os.Symlink(elsewhere, dir)); err != nil {
		t.Fatal(err)
	}
	listen(filepath.Join(elsewhere, "s_6"))
	if _, err := h.Dial(6, newEnd()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("in another directory: %v", err)
	}
	c, err := h.Dial(1, newEnd())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := errors.Join(os.Remove(dir), os.Rename(away, dir)); err != nil {
		t.Fatal(err)
	}
}

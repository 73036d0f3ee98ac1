package hostdir

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// elsewhere returns a guest that continues with a new Dir of the same directory.
func (g *guest) elsewhere(saved []byte, o Options) *guest {
	g.Helper()
	d := open(g, g.host, o)
	if tb, ok := g.TB.(*testing.T); ok {
		tb.Cleanup(func() { d.Close() })
	}
	if err := d.Load(saved); err != nil {
		g.Fatal(err)
	}
	return &guest{g.TB, d, g.host}
}

func (g *guest) save() []byte {
	g.Helper()
	b, err := g.Save()
	if err != nil {
		g.Fatal(err)
	}
	return b
}

// TestState: a guest continues with another Dir. It keeps its nodes and its open
// files and directories, and what has gone meanwhile is gone.
func TestState(t *testing.T) {
	g := share(t, Options{})
	sub := g.makeDir(root, "sub \xff\n") // not UTF-8
	f, s := g.createFile(sub, "f", rdwr, 0o600)
	g.must("create", s)
	g.put(f.Fh, "text", 0)
	ro, s := g.openNode(f.NodeId, unix.O_RDONLY)
	g.must("open", s)
	l := g.symlink(root, "l", "../secret")
	gone, s := g.createFile(root, "gone", rdwr, 0o600)
	g.must("create", s)
	g.must("unlink", g.unlink(root, "gone"))
	moved := g.makeDir(root, "moved")
	if err := os.Rename(filepath.Join(g.host, "moved"), filepath.Join(filepath.Dir(g.host), "moved")); err != nil {
		t.Fatal(err)
	}
	top, dir := g.openDir(root), g.openDir(sub)
	g.lookupName(sub, "f")
	saved := g.save()

	h := g.elsewhere(saved, Options{})
	if again := h.save(); !bytes.Equal(again, saved) {
		t.Errorf("saved %s, loaded and saved %s", saved, again)
	}
	if got := h.content(f.Fh) + h.content(ro.Fh); got != "texttext" {
		t.Errorf("read %q", got)
	}
	h.put(f.Fh, "more", 4)
	_, s = h.WriteFrom(ro.Fh, [][]byte{[]byte("x")}, 0, false)
	h.want("write to what was open for reading", s, fuse.EBADF)
	if h.lookupName(sub, "f").NodeId != f.NodeId || h.lookupName(root, "l").NodeId != l.NodeId {
		t.Error("other nodes than before")
	}
	h.Forget(f.NodeId, 4)
	h.want("getattr of what was forgotten", h.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(f.NodeId)}, new(fuse.AttrOut)), fuse.Status(unix.ESTALE))
	if a, b := len(h.readDirAll(top, 0, false, 4096)), len(h.readDirAll(dir, 0, false, 4096)); a != 4 || b != 3 {
		t.Errorf("directories of %d and %d", a, b)
	}
	for what, s := range map[string]fuse.Status{
		"a file that was deleted":    second(h.ReadInto(gone.Fh, nil, 0)),
		"its node":                   h.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(gone.NodeId)}, new(fuse.AttrOut)),
		"a directory that moved out": second(h.tryLookup(moved, "x")),
	} {
		h.want(what, s, fuse.Status(unix.ESTALE))
	}
	h.Forget(gone.NodeId, 1)
	h.Release(nil, &fuse.ReleaseIn{Fh: gone.Fh})
	next, s := h.createFile(root, "next", rdwr, 0o600)
	if h.must("create", s); next.Fh <= dir || next.NodeId <= dir {
		t.Error("a number is used again")
	}
	g.readOnlyWithout(saved, "sub \xff\n", l.NodeId, f.Fh, ro.Fh)
}

// readOnlyWithout continues read-only and without dir. It checks that link remains,
// and that handles in dir are stale.
func (g *guest) readOnlyWithout(saved []byte, dir string, link uint64, handles ...uint64) {
	g.Helper()
	if err := os.RemoveAll(filepath.Join(g.host, dir)); err != nil {
		g.Fatal(err)
	}
	r := g.elsewhere(saved, Options{ReadOnly: true})
	for _, handle := range handles {
		r.want("a file that is not there", second(r.ReadInto(handle, nil, 0)), fuse.Status(unix.ESTALE))
	}
	if text, s := r.Readlink(nil, &fuse.InHeader{NodeId: link}); !s.Ok() || string(text) != "../secret" {
		g.Errorf("%q, %v", text, s)
	}
}

// TestStateReadOnly: a state does not open files for writing on a read-only share.
func TestStateReadOnly(t *testing.T) {
	g := share(t, Options{})
	f, s := g.createFile(root, "f", rdwr, 0o600)
	g.must("create", s)
	r := g.elsewhere(g.save(), Options{ReadOnly: true})
	r.want("read", second(r.ReadInto(f.Fh, nil, 0)), fuse.Status(unix.ESTALE))
	_, s = r.WriteFrom(f.Fh, [][]byte{[]byte("x")}, 0, false)
	r.want("write", s, fuse.Status(unix.ESTALE))
}

// TestStateHostile: a state is untrusted bytes.
func TestStateHostile(t *testing.T) {
	g := share(t, Options{Files: 5})
	g.symlink(root, "link", "..")
	if err := unix.Mkfifo(filepath.Join(g.host, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	many := strings.Repeat(`{"ID":2,"Lookups":1},`, 6)
	for _, bad := range []string{
		``, `[]`, `{}`, `{"Last":0}`, `{"Last":9223372036854775807}`, `{"Last":-1}`,
		`{"Last":5,"Nodes":[{"ID":1,"Lookups":1}]}`, `{"Last":5,"Nodes":[{"ID":0,"Lookups":1}]}`, `{"Last":5,"Nodes":[{"ID":6,"Lookups":1}]}`,
		`{"Last":5,"Nodes":[{"ID":2,"Lookups":1},{"ID":2,"Lookups":1}]}`, `{"Last":5,"Nodes":[{"ID":2}]}`,
		`{"Last":5,"Nodes":[{"ID":2,"Lookups":1}],"Handles":[{"ID":2}]}`, `{"Last":5,"Handles":[{"ID":2,"Root":true}]}`,
		`{"Last":9,"Nodes":[` + strings.TrimSuffix(many, ",") + `]}`,
	} {
		if err := g.Load([]byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "share "+g.host) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, path := range []string{"..", "../secret", "/etc/passwd", "link/secret", "link", "pipe", "", ".", "a\x00b", strings.Repeat("x/", 3000)} {
		for _, kind := range []uint32{unix.S_IFREG, unix.S_IFDIR} {
			s := fmt.Sprintf(`{"Last":3,"Nodes":[{"ID":2,"Path":%q,"Kind":%d,"Lookups":1}],"Handles":[{"ID":3,"Path":%q,"Flags":577,"Dir":%v}]}`,
				encode(path), kind, encode(path), kind == unix.S_IFDIR)
			if err := g.Load([]byte(s)); err != nil {
				t.Errorf("%q: %v", path, err)
				continue
			}
			if path == "." && kind == unix.S_IFDIR {
				continue // the root
			}
			n, status := g.use(2)
			if status.Ok() {
				t.Errorf("%q leads to %+v", path, n)
			}
			if h, status := g.useHandle(3, kind == unix.S_IFDIR); status.Ok() {
				t.Errorf("%q is open: %+v", path, h)
			}
		}
	}
	g.intact()
}

func encode(path string) string { return base64.StdEncoding.EncodeToString([]byte(path)) }

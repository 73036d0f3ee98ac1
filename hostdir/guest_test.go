package hostdir

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A guest uses a directory as a guest kernel would, and fails the test on an
// unexpected answer.
type guest struct {
	testing.TB
	*Dir
	host string // the directory as the host sees it
}

// share shares a new directory. Beside it is a file "secret" that no guest may reach.
func share(t testing.TB, o Options) *guest {
	t.Helper()
	outside := t.TempDir()
	host := filepath.Join(outside, "share")
	if err := os.Mkdir(host, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(outside, "secret"), secret)
	d := open(t, host, o)
	t.Cleanup(func() { d.Close() })
	return &guest{t, d, host}
}

// steps makes all directories work without openat2, as on an old kernel.
var steps = false

func open(t testing.TB, host string, o Options) *Dir {
	t.Helper()
	d, err := Open(host, o)
	if err != nil {
		t.Fatal(err)
	}
	if d.noOpenat2 = d.noOpenat2 || steps; d.noOpenat2 {
		if d.mount, err = mountID(d.root); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

const secret = "of the host"

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) want(what string, got, want fuse.Status) {
	g.Helper()
	if got != want {
		g.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (g *guest) must(what string, s fuse.Status) {
	g.Helper()
	if !s.Ok() {
		g.Fatalf("%s: %v", what, s)
	}
}

func head(node uint64) fuse.InHeader { return fuse.InHeader{NodeId: node} }

const root = fuse.FUSE_ROOT_ID

// lookupName returns the node of a name, which must exist.
func (g *guest) lookupName(dir uint64, name string) fuse.EntryOut {
	g.Helper()
	out, s := g.tryLookup(dir, name)
	g.must("lookup "+name, s)
	return out
}

func (g *guest) tryLookup(dir uint64, name string) (out fuse.EntryOut, s fuse.Status) {
	h := head(dir)
	return out, g.Lookup(nil, &h, name, &out)
}

func (g *guest) openNode(node uint64, flags int) (fuse.OpenOut, fuse.Status) {
	var out fuse.OpenOut
	s := g.Open(nil, &fuse.OpenIn{InHeader: head(node), Flags: uint32(flags)}, &out)
	return out, s
}

func (g *guest) createFile(dir uint64, name string, flags int, mode uint32) (fuse.CreateOut, fuse.Status) {
	var out fuse.CreateOut
	s := g.Create(nil, &fuse.CreateIn{InHeader: head(dir), Flags: uint32(flags), Mode: mode}, name, &out)
	return out, s
}

func (g *guest) makeDir(dir uint64, name string) uint64 {
	g.Helper()
	var out fuse.EntryOut
	g.must("mkdir "+name, g.Mkdir(nil, &fuse.MkdirIn{InHeader: head(dir), Mode: 0o755}, name, &out))
	return out.NodeId
}

func (g *guest) symlink(dir uint64, name, text string) fuse.EntryOut {
	g.Helper()
	var out fuse.EntryOut
	h := head(dir)
	g.must("symlink "+name, g.Symlink(nil, &h, text, name, &out))
	return out
}

func (g *guest) rename(dir uint64, from string, into uint64, to string, flags uint32) fuse.Status {
	return g.Rename(nil, &fuse.RenameIn{InHeader: head(dir), Newdir: into, Flags: flags}, from, to)
}

func (g *guest) unlink(dir uint64, name string) fuse.Status {
	h := head(dir)
	return g.Unlink(nil, &h, name)
}

func (g *guest) mknod(name string, mode, dev uint32) (out fuse.EntryOut, s fuse.Status) {
	return out, g.Mknod(nil, &fuse.MknodIn{InHeader: head(root), Mode: mode, Rdev: dev}, name, &out)
}

func (g *guest) link(node, dir uint64, name string) fuse.Status {
	var out fuse.EntryOut
	return g.Link(nil, &fuse.LinkIn{InHeader: head(dir), Oldnodeid: node}, name, &out)
}

// set sends a SETATTR.
func (g *guest) set(node uint64, valid uint32, change func(*fuse.SetAttrIn)) (fuse.AttrOut, fuse.Status) {
	in := fuse.SetAttrIn{}
	in.NodeId, in.Valid = node, valid
	change(&in)
	var out fuse.AttrOut
	s := g.SetAttr(nil, &in, &out)
	return out, s
}

func (g *guest) getAttr(node uint64) fuse.Attr {
	g.Helper()
	var out fuse.AttrOut
	g.must("getattr", g.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(node)}, &out))
	return out.Attr
}

// content returns the whole content of an open file.
func (g *guest) content(handle uint64) string {
	g.Helper()
	buf := make([]byte, 1000)
	n, s := g.ReadInto(handle, [][]byte{buf[:3], buf[3:10], buf[10:]}, 0)
	g.must("read", s)
	return string(buf[:n])
}

func (g *guest) put(handle uint64, text string, off uint64) {
	g.Helper()
	n, s := g.WriteFrom(handle, [][]byte{[]byte(text)[:1], []byte(text)[1:]}, off, false)
	g.must("write", s)
	if n != len(text) {
		g.Errorf("%d bytes were written of %d", n, len(text))
	}
}

// hostContent returns a file's content as the host sees it.
func (g *guest) hostContent(name string) string {
	g.Helper()
	b, err := os.ReadFile(filepath.Join(g.host, name))
	if err != nil {
		g.Fatal(err)
	}
	return string(b)
}

func (g *guest) hostMode(name string) uint32 {
	g.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(g.host, name), &st); err != nil {
		g.Fatal(err)
	}
	return st.Mode
}

// count returns the number of nodes and handles.
func (g *guest) count() (nodes, handles int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.nodes), len(g.handles)
}

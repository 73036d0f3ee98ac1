package hostdir

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const enospc = fuse.Status(unix.ENOSPC)

// limited shares a directory with a quota of size bytes.
func limited(t *testing.T, size int64) *guest {
	t.Helper()
	g := share(t, Options{Quota: NewQuota(size)})
	t.Cleanup(func() {
		q := g.quota
		q.mu.Lock()
		defer q.mu.Unlock()
		sum := int64(0)
		for _, n := range q.cost {
			sum += n
		}
		if sum != q.used || q.used < 0 {
			t.Errorf("%d bytes are used, all cost %d", q.used, sum)
		}
	})
	return g
}

func (g *guest) used() int64 {
	g.quota.mu.Lock()
	defer g.quota.mu.Unlock()
	return g.quota.used
}

// fill writes pieces to a file from off on until there is no room, and returns the
// number of bytes written.
func (g *guest) fill(handle uint64, off uint64) (total uint64) {
	g.Helper()
	piece := make([]byte, 16<<10)
	for {
		n, s := g.WriteFrom(handle, [][]byte{piece}, off+total, false)
		if s == enospc {
			return total
		}
		g.must("write", s)
		if total += uint64(n); total > 1<<30 {
			g.Fatal("there is no bound")
		}
	}
}

// drop unlinks a file, closes it and forgets it.
func (g *guest) drop(name string, out fuse.CreateOut) {
	g.Helper()
	g.must("unlink", g.unlink(root, name))
	g.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	g.Forget(out.NodeId, 1<<40)
}

// TestQuota: a guest adds no more than its quota, gets back what it frees, and can
// change what it has.
func TestQuota(t *testing.T) {
	const size = 1 << 20
	g := limited(t, size)
	f := g.createAs(fuse.Owner{}, root, "f", 0o600)
	full := g.fill(f.Fh, 0)
	if full < size*3/4 || full > size || g.used() > size {
		t.Errorf("%d bytes were written, %d are used", full, g.used())
	}
	var st fuse.StatfsOut
	h := head(root)
	g.must("statfs", g.StatFs(nil, &h, &st))
	if st.Blocks*uint64(st.Frsize) != size || st.Bavail*uint64(st.Frsize) > size-full || st.Files != size/inodeCost || st.Ffree >= st.Files {
		t.Errorf("%+v", st)
	}
	g.put(f.Fh, "what is there can be changed", 5000)
	_, s := g.set(f.NodeId, fuse.FATTR_SIZE, func(in *fuse.SetAttrIn) { in.Size = full / 2 })
	g.must("truncate", s)
	if again := g.fill(f.Fh, full/2); again+64<<10 < full/2 {
		t.Errorf("%d bytes after half was freed of %d", again, full)
	}
	g.must("unlink", g.unlink(root, "f"))
	e := g.createAs(fuse.Owner{}, root, "e", 0o600)
	if n := g.fill(e.Fh, 0); n > 128<<10 {
		t.Errorf("%d bytes, while what was deleted is open", n)
	}
	g.Release(nil, &fuse.ReleaseIn{Fh: f.Fh})
	g.Forget(f.NodeId, 1)
	if n := g.fill(e.Fh, 0); n < full*3/4 {
		t.Errorf("%d bytes, once it was closed", n)
	}
	g.drop("e", e)
	if left := g.used(); left > 2*blockSlack {
		t.Errorf("%d bytes are used of an empty directory", left)
	}
}

// TestQuotaHoles: holes cost nothing until they are filled.
func TestQuotaHoles(t *testing.T) {
	g := limited(t, 1<<20)
	f := g.createAs(fuse.Owner{}, root, "f", 0o600)
	_, s := g.set(f.NodeId, fuse.FATTR_SIZE, func(in *fuse.SetAttrIn) { in.Size = 1 << 40 })
	if g.must("a large file of nothing", s); g.used() > 64<<10 {
		t.Errorf("a hole costs %d", g.used())
	}
	if n := g.fill(f.Fh, 1<<30); n < 512<<10 || n > 1<<20 {
		t.Errorf("%d bytes in a hole", n)
	}
	_, s = g.WriteFrom(f.Fh, [][]byte{make([]byte, 128<<10)}, 1<<33, false)
	g.want("write to a hole", s, enospc)
	s = g.Fallocate(nil, &fuse.FallocateIn{Fh: f.Fh, Mode: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, Offset: 1 << 30, Length: 1 << 30})
	if s == fuse.Status(unix.EOPNOTSUPP) {
		t.Skip("the host's file system makes no holes")
	}
	g.must("punch", s)
	if g.used() > 64<<10 {
		t.Errorf("%d bytes after the hole was made again", g.used())
	}
	if s := g.Fallocate(nil, &fuse.FallocateIn{Fh: f.Fh, Length: 1 << 30}); s != fuse.Status(unix.EOPNOTSUPP) {
		g.want("allocate", s, enospc)
	}
	g.drop("f", f)
}

// TestQuotaNames: a file with several names, or one that is replaced, counts once, as
// long as it exists. Files have a cost, and so do their attributes.
func TestQuotaNames(t *testing.T) {
	const files = 32
	g := limited(t, files*inodeCost)
	made := 0
	for ; made < 2*files; made++ {
		var out fuse.EntryOut
		h := head(root)
		s := g.Symlink(nil, &h, "text", fmt.Sprint("link", made), &out)
		if s == enospc {
			break
		}
		g.must("symlink", s)
		g.Forget(out.NodeId, 1)
	}
	if made < files/2 || made > files {
		t.Errorf("%d links with room for %d", made, files)
	}
	_, s := g.createFile(root, "f", rdwr, 0o600)
	g.want("create", s, enospc)
	var out fuse.EntryOut
	g.want("mkdir", g.Mkdir(nil, &fuse.MkdirIn{InHeader: head(root)}, "d", &out), enospc)
	g.want("tmpfile", g.Tmpfile(nil, &fuse.CreateIn{InHeader: head(root), Flags: rdwr}, new(fuse.CreateOut)), enospc)
	g.must("rename over", g.rename(root, "link0", root, "link1", 0))
	g.must("rename over", g.rename(root, "link2", root, "link3", 0))
	g.must("unlink", g.unlink(root, "link4"))
	f := g.createAs(fuse.Owner{}, root, "f", 0o600)
	before := g.used()
	for i := range 2 {
		if g.link(f.NodeId, root, fmt.Sprint("f", i)).Ok() {
			g.must("unlink", g.unlink(root, fmt.Sprint("f", i)))
		}
	}
	if g.used() != before {
		t.Errorf("%d bytes for names, %d before", g.used(), before)
	}
	g.drop("f", f)
	if after := g.used(); after >= before {
		t.Errorf("%d bytes after a file was removed, %d before", after, before)
	}
}

// TestQuotaXattr: attributes count, even if they add no blocks.
func TestQuotaXattr(t *testing.T) {
	g := limited(t, 64<<10)
	f := g.createAs(fuse.Owner{}, root, "f", 0o600)
	before := g.used()
	value := make([]byte, 1000)
	set := func(i int) fuse.Status {
		return g.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: head(f.NodeId), Size: 1000}, fmt.Sprint("user.", i), value)
	}
	if s := set(0); s == fuse.Status(unix.EOPNOTSUPP) {
		t.Skip("the host's file system has no attributes")
	}
	g.must("setxattr again", set(0))
	if more := g.used() - before; more != 1006 {
		t.Errorf("an attribute costs %d", more)
	}
	for i := 0; ; i++ {
		if s := set(i); !s.Ok() { // the host's limit, or the quota
			break
		}
	}
	for i := range 100 {
		h := head(f.NodeId)
		g.RemoveXAttr(nil, &h, fmt.Sprint("user.", i))
	}
	if g.used() != before {
		t.Errorf("%d bytes without attributes, %d before", g.used(), before)
	}
}

// TestQuotaHost: files from before are not counted, but additions to them are.
// Freeing them gives no credit. The next life has the same quota.
func TestQuotaHost(t *testing.T) {
	g := limited(t, 1<<20)
	for _, name := range []string{"big", "other"} {
		if err := os.WriteFile(filepath.Join(g.host, name), make([]byte, 4<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	big := g.lookupName(root, "big").NodeId
	out, s := g.openNode(big, rdwr)
	g.must("open", s)
	g.put(out.Fh, "changed", 100)
	g.must("unlink", g.unlink(root, "other"))
	_, s = g.set(big, fuse.FATTR_SIZE, func(in *fuse.SetAttrIn) { in.Size = 0 })
	g.must("truncate", s)
	if g.used() != 0 {
		t.Errorf("%d bytes for what frees some", g.used())
	}
	if n := g.fill(out.Fh, 0); n > 1<<20 {
		t.Errorf("%d bytes were added", n)
	}
	d := open(t, g.host, Options{Quota: g.quota})
	defer d.Close()
	next := &guest{t, d, g.host}
	f := next.createAs(fuse.Owner{}, root, "f", 0o600)
	if n := next.fill(f.Fh, 0); n > 128<<10 {
		t.Errorf("%d bytes in the next life", n)
	}
	next.must("unlink", next.unlink(root, "big"))
	if n := next.fill(f.Fh, 0); n > 128<<10 {
		t.Errorf("%d bytes while the life before has it open", n)
	}
	next.drop("f", f)
}

// TestQuotaCopy: data copied within the host counts too.
func TestQuotaCopy(t *testing.T) {
	g := limited(t, 1<<20)
	f := g.createAs(fuse.Owner{}, root, "f", 0o600)
	for i := range uint64(10) {
		g.put(f.Fh, string(make([]byte, 64<<10)), i<<16)
	}
	e := g.createAs(fuse.Owner{}, root, "e", 0o600)
	_, s := g.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: f.Fh, FhOut: e.Fh, Len: 640 << 10})
	if s == fuse.EXDEV || s == fuse.Status(unix.EOPNOTSUPP) {
		t.Skip("the host's file system does not copy")
	}
	if g.want("copy", s, enospc); g.used() > 1<<20 {
		t.Errorf("%d bytes are used", g.used())
	}
	n, s := g.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: f.Fh, FhOut: e.Fh, Len: 128 << 10})
	if g.must("copy of less", s); n != 128<<10 {
		t.Errorf("%d bytes were copied", n)
	}
}

// TestQuotaInodes: the inodes kept are bounded, however large the quota is.
func TestQuotaInodes(t *testing.T) {
	q := NewQuota(1 << 50)
	if q.inodes != maxInodes {
		t.Errorf("%d inodes, want %d", q.inodes, maxInodes)
	}
	q.inodes = 3
	g := share(t, Options{Quota: q})
	for i := range 3 {
		_, s := g.createFile(root, fmt.Sprint(i), rdwr, 0o600)
		g.must("create", s)
	}
	_, s := g.createFile(root, "one more", rdwr, 0o600)
	g.want("one more", s, fuse.Status(unix.ENOSPC))
	g.must("unlink", g.unlink(root, "0"))
}

package hostdir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const rdwr = unix.O_RDWR

func TestFiles(t *testing.T) {
	g := share(t, Options{})
	out, s := g.createFile(root, "new", rdwr, 0o666)
	g.must("create", s)
	g.put(out.Fh, "hello, host", 0)
	g.put(out.Fh, "world", 7)
	if got := g.hostContent("new"); got != "hello, world"[:12] {
		t.Errorf("the host reads %q", got)
	}
	if got := g.content(out.Fh); got != "hello, world" {
		t.Errorf("the guest reads %q", got)
	}
	if out.Uid != 0 || out.Gid != 0 || out.Mode != unix.S_IFREG|0o666 {
		t.Errorf("owner %d:%d, mode %o", out.Uid, out.Gid, out.Mode)
	}
	if mode := g.hostMode("new"); mode&0o777 != 0o644 {
		t.Errorf("the host sees mode %o: others of the host may not write", mode)
	}
	write(t, filepath.Join(g.host, "new"), "changed")
	if got := g.content(out.Fh); got != "changed" {
		t.Errorf("the guest reads %q", got)
	}
	if a := g.getAttr(out.NodeId); a.Size != 7 {
		t.Errorf("%d bytes", a.Size)
	}
	a, s := g.set(out.NodeId, fuse.FATTR_SIZE|fuse.FATTR_MODE|fuse.FATTR_MTIME|fuse.FATTR_ATIME, func(in *fuse.SetAttrIn) {
		in.Size, in.Mode, in.Mtime, in.Mtimensec, in.Atime = 3, 0o640, 1000, 5, 2000
	})
	if g.must("setattr", s); a.Size != 3 || a.Mode != unix.S_IFREG|0o640 || a.Mtime != 1000 || a.Mtimensec != 5 || a.Atime != 2000 {
		t.Errorf("attributes %+v", a)
	}
	g.want("flush", g.Flush(nil, &fuse.FlushIn{Fh: out.Fh}), fuse.ENOSYS)
	g.local = false // as if it were on another host
	g.must("flush", g.Flush(nil, &fuse.FlushIn{Fh: out.Fh}))
	g.must("fsync", g.Fsync(nil, &fuse.FsyncIn{Fh: out.Fh}))
	g.must("fdatasync", g.Fsync(nil, &fuse.FsyncIn{Fh: out.Fh, FsyncFlags: dataOnly}))
	g.must("syncfs", g.SyncFS())
	g.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	g.want("flush after release", g.Flush(nil, &fuse.FlushIn{Fh: out.Fh}), fuse.EBADF)
	g.want("create again", second(g.createFile(root, "new", rdwr|unix.O_EXCL, 0o600)), fuse.Status(unix.EEXIST))
	again, s := g.createFile(root, "new", rdwr, 0o600)
	if g.must("create of what there is", s); again.NodeId != out.NodeId || g.content(again.Fh) != "cha" {
		t.Errorf("node %d, want %d", again.NodeId, out.NodeId)
	}
}

func second[T any](_ T, s fuse.Status) fuse.Status { return s }

func TestTree(t *testing.T) {
	g := share(t, Options{})
	a := g.makeDir(root, "a")
	b := g.makeDir(root, "b")
	f, s := g.createFile(a, "f", rdwr, 0o600)
	g.must("create", s)
	g.must("rename", g.rename(a, "f", b, "g", 0))
	if g.lookupName(b, "g").NodeId != f.NodeId {
		t.Error("another node after a rename")
	}
	g.want("lookup of the old name", second(g.tryLookup(a, "f")), fuse.ENOENT)
	g.must("link", g.link(f.NodeId, a, "h"))
	if n := g.getAttr(f.NodeId).Nlink; n != 2 {
		t.Errorf("%d links", n)
	}
	g.want("rename over", g.rename(b, "g", a, "h2", unix.RENAME_NOREPLACE), fuse.OK)
	g.want("rename over", g.rename(a, "h", a, "h2", unix.RENAME_NOREPLACE), fuse.Status(unix.EEXIST))
	g.must("exchange", g.rename(root, "a", root, "b", unix.RENAME_EXCHANGE))
	if g.lookupName(root, "a").NodeId != b {
		t.Error("not exchanged")
	}
	g.want("whiteout", g.rename(root, "a", root, "c", unix.RENAME_WHITEOUT), fuse.EINVAL)
	h := head(root)
	g.want("rmdir of a full one", g.Rmdir(nil, &h, "b"), fuse.Status(unix.ENOTEMPTY))
	g.must("rmdir", g.Rmdir(nil, &h, "a"))
	g.want("unlink of a directory", g.unlink(root, "b"), fuse.EISDIR)
	g.must("unlink", g.unlink(a, "h"))
	g.must("unlink", g.unlink(a, "h2"))
	g.put(f.Fh, "still there", 0) // still open
	if g.content(f.Fh) != "still there" || g.getAttr(f.NodeId).Nlink != 0 {
		t.Error("a file that was deleted is not usable")
	}
	l := g.symlink(root, "l", "../../anywhere")
	h.NodeId = l.NodeId
	text, s := g.Readlink(nil, &h)
	if g.must("readlink", s); string(text) != "../../anywhere" || l.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("link %q, mode %o", text, l.Mode)
	}
	_, s = g.set(l.NodeId, fuse.FATTR_MTIME, func(in *fuse.SetAttrIn) { in.Mtime = 7 })
	if g.must("times of a link", s); g.getAttr(l.NodeId).Mtime != 7 {
		t.Error("the link's time is as it was")
	}
	g.must("link of a link", g.link(l.NodeId, root, "l2"))
}

func TestTmpfile(t *testing.T) {
	g := share(t, Options{})
	var out fuse.CreateOut
	s := g.Tmpfile(nil, &fuse.CreateIn{InHeader: head(root), Flags: rdwr, Mode: 0o666}, &out)
	if s == fuse.Status(unix.EOPNOTSUPP) {
		t.Skip("the host's file system has none")
	}
	g.must("tmpfile", s)
	g.put(out.Fh, "linked later", 0)
	g.must("link", g.link(out.NodeId, root, "name"))
	if g.hostContent("name") != "linked later" || g.hostMode("name")&0o777 != 0o644 {
		t.Errorf("%q, %o", g.hostContent("name"), g.hostMode("name"))
	}
}

func TestSparse(t *testing.T) {
	g := share(t, Options{})
	a, s := g.createFile(root, "a", rdwr, 0o600)
	g.must("create", s)
	b, s := g.createFile(root, "b", rdwr, 0o600)
	g.must("create", s)
	g.put(a.Fh, "data", 1<<20)
	var at fuse.LseekOut
	g.must("lseek", g.Lseek(nil, &fuse.LseekIn{Fh: a.Fh, Whence: unix.SEEK_DATA}, &at))
	if at.Offset == 0 || at.Offset > 1<<20 {
		t.Errorf("data at %#x", at.Offset)
	}
	g.want("lseek from here", g.Lseek(nil, &fuse.LseekIn{Fh: a.Fh, Whence: unix.SEEK_CUR}, &at), fuse.EINVAL)
	g.want("lseek to the past", g.Lseek(nil, &fuse.LseekIn{Fh: a.Fh, Whence: unix.SEEK_DATA, Offset: 1 << 63}, &at), fuse.EINVAL)
	n, s := g.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: a.Fh, OffIn: 1 << 20, FhOut: b.Fh, OffOut: 2, Len: 1 << 40})
	if s == fuse.EXDEV || s == fuse.Status(unix.EOPNOTSUPP) {
		t.Skip("the host's file system does not copy")
	}
	if g.must("copy", s); n != 4 || g.content(b.Fh) != "\x00\x00data" {
		t.Errorf("%d bytes copied, %q", n, g.content(b.Fh))
	}
	s = g.Fallocate(nil, &fuse.FallocateIn{Fh: b.Fh, Length: 4096, Mode: unix.FALLOC_FL_KEEP_SIZE})
	if s != fuse.Status(unix.EOPNOTSUPP) {
		g.must("fallocate", s)
	}
	g.want("fallocate of nonsense", g.Fallocate(nil, &fuse.FallocateIn{Fh: b.Fh, Offset: 1 << 63, Length: 1}), fuse.EINVAL)
}

func TestXattr(t *testing.T) {
	g := share(t, Options{})
	f, s := g.createFile(root, "f", rdwr, 0o600)
	g.must("create", s)
	h := head(f.NodeId)
	set := func(name, value string) fuse.Status {
		return g.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h, Size: uint32(len(value))}, name, []byte(value))
	}
	if s := set("user.one", "1"); s == fuse.Status(unix.EOPNOTSUPP) {
		t.Skip("the host's file system has no attributes")
	}
	g.must("setxattr", set("user.two", "22"))
	g.must("removexattr", g.RemoveXAttr(nil, &h, "user.one"))
	dest := make([]byte, 100)
	n, s := g.GetXAttr(nil, &h, "user.two", dest)
	if g.must("getxattr", s); string(dest[:n]) != "22" {
		t.Errorf("%q", dest[:n])
	}
	n, s = g.ListXAttr(nil, &h, dest)
	if g.must("listxattr", s); string(dest[:n]) != "user.two\x00" {
		t.Errorf("%q", dest[:n])
	}
	n, s = g.ListXAttr(nil, &h, nil)
	if s != fuse.ERANGE || n != 9 {
		t.Errorf("%d, %v", n, s)
	}
	n, s = g.GetXAttr(nil, &h, "user.two", nil)
	if n != 2 || s != fuse.ERANGE {
		t.Errorf("%d, %v", n, s)
	}
	for _, name := range []string{"security.capability", "trusted.x", "system.posix_acl_access", "user", "", "x"} {
		g.want("setxattr "+name, set(name, "x"), fuse.Status(unix.EOPNOTSUPP))
		_, s = g.GetXAttr(nil, &h, name, dest)
		g.want("getxattr "+name, s, fuse.Status(unix.EOPNOTSUPP))
		g.want("removexattr "+name, g.RemoveXAttr(nil, &h, name), fuse.Status(unix.EOPNOTSUPP))
	}
	g.want("a name that is too long", set("user."+strings.Repeat("x", 255), "x"), fuse.EINVAL)
	l := head(g.symlink(root, "l", "f").NodeId)
	n, s = g.ListXAttr(nil, &l, dest)
	g.want("listxattr of a link", s, fuse.OK)
	_, s = g.GetXAttr(nil, &l, "user.two", dest)
	if g.want("getxattr of a link", s, fuse.EPERM); n != 0 {
		t.Errorf("a link has %d bytes of names", n)
	}
}

// TestHostOwner: with HostOwner, the user's files are root's in the guest, and other
// users' files are nobody's. Neither can be given away, and modes are the host's.
func TestHostOwner(t *testing.T) {
	g := share(t, Options{HostOwner: true})
	f, s := g.createFile(root, "f", rdwr, 0o600)
	g.must("create", s)
	chown := func(uid, gid uint32) fuse.Status {
		_, s := g.set(f.NodeId, fuse.FATTR_UID|fuse.FATTR_GID, func(in *fuse.SetAttrIn) { in.Uid, in.Gid = uid, gid })
		return s
	}
	g.want("chown to root", chown(0, 0), fuse.OK)
	g.want("chown to another", chown(1000, 0), fuse.EPERM)
	g.want("chgrp to another", chown(0, 1000), fuse.EPERM)
	dir := g.makeDir(root, "dir")
	for _, node := range []uint64{f.NodeId, dir} {
		_, s = g.set(node, fuse.FATTR_MODE, func(in *fuse.SetAttrIn) { in.Mode = 0o666 })
		g.must("chmod", s)
	}
	for _, name := range []string{"f", "dir"} {
		if mode := g.hostMode(name); mode&0o7777 != 0o666 {
			t.Errorf("%s has mode %o", name, mode)
		}
	}
	g.owner.uid++ // as if another user shared it
	g.owner.groups = nil
	if a := g.getAttr(f.NodeId); a.Uid != nobody || a.Gid != nobody {
		t.Errorf("owner %d:%d", a.Uid, a.Gid)
	}
	g.want("chown to root", chown(0, 0), fuse.EPERM)
	g.want("chown to nobody", chown(nobody, nobody), fuse.OK)
}

// TestReadOnly: no request of a guest changes a read-only share.
func TestReadOnly(t *testing.T) {
	g := share(t, Options{ReadOnly: true})
	write(t, filepath.Join(g.host, "f"), "text")
	before := g.hostMode("f")
	f := g.lookupName(root, "f")
	h := head(root)
	var entry fuse.EntryOut
	var created fuse.CreateOut
	node := head(f.NodeId)
	for what, s := range map[string]fuse.Status{
		"open for writing":   second(g.openNode(f.NodeId, unix.O_WRONLY)),
		"open for both":      second(g.openNode(f.NodeId, rdwr)),
		"open and truncate":  second(g.openNode(f.NodeId, unix.O_TRUNC)),
		"create":             second(g.createFile(root, "new", unix.O_RDONLY, 0o600)),
		"create of the same": second(g.createFile(root, "f", unix.O_RDONLY, 0o600)),
		"tmpfile":            g.Tmpfile(nil, &fuse.CreateIn{InHeader: h, Flags: rdwr}, &created),
		"mknod":              second(g.mknod("new", unix.S_IFREG|0o600, 0)),
		"mkdir":              g.Mkdir(nil, &fuse.MkdirIn{InHeader: h}, "new", &entry),
		"symlink":            g.Symlink(nil, &h, "text", "new", &entry),
		"link":               g.link(f.NodeId, root, "new"),
		"unlink":             g.unlink(root, "f"),
		"rmdir":              g.Rmdir(nil, &h, "f"),
		"rename":             g.rename(root, "f", root, "new", 0),
		"setattr":            second(g.set(f.NodeId, 0, func(*fuse.SetAttrIn) {})),
		"truncate":           second(g.set(f.NodeId, fuse.FATTR_SIZE, func(*fuse.SetAttrIn) {})),
		"chmod":              second(g.set(f.NodeId, fuse.FATTR_MODE, func(in *fuse.SetAttrIn) { in.Mode = 0o777 })),
		"setxattr":           g.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: node, Size: 1}, "user.x", []byte("x")),
		"removexattr":        g.RemoveXAttr(nil, &node, "user.x"),
	} {
		g.want(what, s, fuse.EROFS)
	}
	out, s := g.openNode(f.NodeId, unix.O_RDONLY)
	if g.must("open", s); g.content(out.Fh) != "text" {
		t.Error("not readable")
	}
	_, s = g.WriteFrom(out.Fh, [][]byte{[]byte("x")}, 0, false)
	g.want("write", s, fuse.EBADF)
	g.want("fallocate", g.Fallocate(nil, &fuse.FallocateIn{Fh: out.Fh, Length: 100}), fuse.EBADF)
	_, s = g.set(f.NodeId, fuse.FATTR_SIZE|fuse.FATTR_FH, func(in *fuse.SetAttrIn) { in.Fh = out.Fh })
	g.want("truncate by handle", s, fuse.EROFS)
	g.want("copy", second(g.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: out.Fh, FhOut: out.Fh, OffOut: 100, Len: 1})), fuse.EBADF)
	g.must("syncfs", g.SyncFS())
	names, err := os.ReadDir(g.host)
	if err != nil || len(names) != 1 || g.hostMode("f") != before || g.hostContent("f") != "text" {
		t.Errorf("%v, %v", names, err)
	}
}

// TestForget: numbers come and go with the guest's requests, and a wrong request changes
// nothing else.
func TestForget(t *testing.T) {
	g := share(t, Options{})
	write(t, filepath.Join(g.host, "f"), "text")
	f := g.lookupName(root, "f").NodeId
	g.lookupName(root, "f")
	out, s := g.openNode(f, unix.O_RDONLY)
	g.must("open", s)
	g.Forget(f, 1)
	g.getAttr(f)
	g.Forget(f, 1)
	g.want("getattr of what was forgotten", g.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(f)}, new(fuse.AttrOut)), fuse.Status(unix.ESTALE))
	if g.content(out.Fh) != "text" {
		t.Error("a handle went with its node")
	}
	g.Forget(f, 1) // more than its lookups
	again := g.lookupName(root, "f").NodeId
	if again == f {
		t.Error("a number is used again")
	}
	g.Forget(again, 1<<63)
	g.Forget(root, 1<<63)
	g.Forget(0, 1)
	g.Forget(1<<64-1, 1)
	g.getAttr(root)
	g.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	g.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	if nodes, handles := g.count(); nodes != 1 || handles != 0 || g.open != 0 {
		t.Errorf("%d nodes, %d handles, %d descriptors are left", nodes, handles, g.open)
	}
	g.lookupName(root, "f")
	g.Reset()
	if nodes, _ := g.count(); nodes != 1 {
		t.Errorf("%d nodes after a reset", nodes)
	}
}

// TestBounds: a guest cannot open more than its limit.
func TestBounds(t *testing.T) {
	g := share(t, Options{Files: 10})
	for i := range 12 {
		name := string(rune('a' + i))
		write(t, filepath.Join(g.host, name), name)
		_, s := g.tryLookup(root, name)
		want := fuse.OK
		if i >= 10 {
			want = fuse.Status(unix.ENFILE)
		}
		g.want("lookup "+name, s, want)
	}
	a := g.lookupName(root, "a")
	g.want("open", second(g.openNode(a.NodeId, unix.O_RDONLY)), fuse.Status(unix.ENFILE))
	g.want("create", second(g.createFile(root, "z", rdwr, 0o600)), fuse.Status(unix.ENFILE))
	g.Forget(g.lookupName(root, "b").NodeId, 2)
	out, s := g.openNode(a.NodeId, unix.O_RDONLY)
	g.must("open with room", s)
	g.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	g.lookupName(root, "k")
	if g.open != 10 {
		t.Errorf("%d descriptors", g.open)
	}

	g.Reset()
	g.closing.Wait() // files that are not closed yet count
	g.readDirAll(g.openDir(root), 0, true, 4096)
	if nodes, _ := g.count(); nodes != 5 { // the root and 4 others: 5 descriptors with the directory's
		t.Errorf("a directory that was read has %d nodes", nodes)
	}
	g.lookupName(root, "l")

	g = share(t, Options{})
	var dir fuse.OpenOut
	for range maxDirs {
		g.must("opendir", g.OpenDir(nil, &fuse.OpenIn{InHeader: head(root)}, &dir))
	}
	g.want("opendir", g.OpenDir(nil, &fuse.OpenIn{InHeader: head(root)}, &dir), fuse.Status(unix.ENFILE))
	g.ReleaseDir(&fuse.ReleaseIn{Fh: 2})
	g.must("opendir with room", g.OpenDir(nil, &fuse.OpenIn{InHeader: head(root)}, &dir))
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "")
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file or directory; create it with: mkdir -p " + filepath.Join(dir, "none"),
		file:                       "not a directory; share the directory that it is in",
		"/proc":                    "shows the host's kernel and not files; share a directory of a disk",
		"/sys":                     "shows the host's kernel and not files; share a directory of a disk",
	} {
		if _, err := Open(path, Options{ReadOnly: true}); err == nil || !strings.HasPrefix(err.Error(), "share "+path) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if os.Geteuid() == 0 {
		return // root may write everywhere
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir, 0o755) }) // or it could not be removed
	if _, err := Open(dir, Options{}); err == nil || err.Error() != "share "+dir+": permission denied; you may not write there: share it with :ro" {
		t.Errorf("a directory that may not be written to: %v", err)
	}
	d, err := Open(dir, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

// TestCache: the guest keeps cached file data as long as the file does not change.
func TestCache(t *testing.T) {
	g := share(t, Options{})
	path := filepath.Join(g.host, "f")
	write(t, path, "text")
	age := func(sec int64) { // sets times in the past
		if err := unix.UtimesNano(path, []unix.Timespec{{Sec: sec}, {Sec: sec}}); err != nil {
			t.Fatal(err)
		}
	}
	age(1000)
	f := g.lookupName(root, "f")
	keeps := func() bool {
		out, s := g.openNode(f.NodeId, unix.O_RDONLY)
		g.must("open", s)
		g.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
		return out.OpenFlags&fuse.FOPEN_KEEP_CACHE != 0
	}
	//lint:ignore SA4000 each is another open
	if keeps() || keeps() {
		t.Error("a file that has changed just now")
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	n, s := g.use(f.NodeId)
	g.must("use", s)
	defer g.done(n)
	old := func() bool { return g.unchanged(n, &st) }
	st.Ctim.Sec -= 10
	if old() {
		t.Error("the first time")
	}
	//lint:ignore SA4000 each is another look
	if !old() || !old() {
		t.Error("a file as it was")
	}
	st.Mtim.Nsec++
	if old() || !old() {
		t.Error("another time")
	}
	st.Size++
	if old() || !old() {
		t.Error("another size")
	}
	st.Ctim.Sec++
	if old() || !old() {
		t.Error("another change")
	}
}

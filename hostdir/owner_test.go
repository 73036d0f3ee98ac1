package hostdir

import (
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// user is a guest user other than root.
var user = fuse.Owner{Uid: 1000, Gid: 100}

func as(who fuse.Owner, node uint64) fuse.InHeader {
	return fuse.InHeader{NodeId: node, Caller: fuse.Caller{Owner: who}}
}

func (g *guest) createAs(who fuse.Owner, dir uint64, name string, mode uint32) fuse.CreateOut {
	g.Helper()
	var out fuse.CreateOut
	g.must("create "+name, g.Create(nil, &fuse.CreateIn{InHeader: as(who, dir), Flags: rdwr, Mode: mode}, name, &out))
	return out
}

func (g *guest) mkdirAs(who fuse.Owner, dir uint64, name string, mode uint32) fuse.EntryOut {
	g.Helper()
	var out fuse.EntryOut
	g.must("mkdir "+name, g.Mkdir(nil, &fuse.MkdirIn{InHeader: as(who, dir), Mode: mode}, name, &out))
	return out
}

func (g *guest) chown(node uint64, uid, gid uint32) fuse.Status {
	_, s := g.set(node, fuse.FATTR_UID|fuse.FATTR_GID, func(in *fuse.SetAttrIn) { in.Uid, in.Gid = uid, gid })
	return s
}

func (g *guest) chmodTo(node uint64, mode uint32) fuse.Status {
	_, s := g.set(node, fuse.FATTR_MODE, func(in *fuse.SetAttrIn) { in.Mode = mode })
	return s
}

// is checks a node's owner and mode.
func (g *guest) is(what string, node uint64, uid, gid, mode uint32) {
	g.Helper()
	if a := g.getAttr(node); a.Uid != uid || a.Gid != gid || a.Mode&permissions != mode {
		g.Errorf("%s: %d:%d %o, want %d:%d %o", what, a.Uid, a.Gid, a.Mode&permissions, uid, gid, mode)
	}
}

// attribute returns the override on the host's file, "" for none.
func (g *guest) attribute(name string) string {
	g.Helper()
	value := make([]byte, 100)
	n, err := unix.Lgetxattr(filepath.Join(g.host, name), overrideXattr, value)
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		g.Fatal(err)
	}
	return string(value[:max(n, 0)])
}

func (g *guest) setAttribute(name, value string) {
	g.Helper()
	if err := unix.Lsetxattr(filepath.Join(g.host, name), overrideXattr, []byte(value), 0); err != nil {
		g.Fatal(err)
	}
}

// eachStore runs a test with overrides in attributes and in memory.
func eachStore(t *testing.T, o Options, test func(t *testing.T, g *guest)) {
	t.Run("attribute", func(t *testing.T) {
		g := share(t, o)
		if g.noXattr {
			t.Skip("the host's file system has no attributes")
		}
		test(t, g)
	})
	t.Run("memory", func(t *testing.T) {
		g := share(t, o)
		g.noXattr = true
		test(t, g)
		if got := g.attribute("."); got != "" {
			t.Errorf("the directory has %q", got)
		}
	})
}

// TestUser: a user other than root owns whatever he makes.
func TestUser(t *testing.T) {
	eachStore(t, Options{}, func(t *testing.T, g *guest) {
		dir := g.mkdirAs(user, root, "dir", 0o755)
		f := g.createAs(user, dir.NodeId, "f", 0o600)
		if dir.Owner != user || f.Owner != user || f.Attr.Mode != unix.S_IFREG|0o600 {
			t.Errorf("told of %+v, %+v", dir.Attr, f.Attr)
		}
		nodes := map[string]uint64{"dir": dir.NodeId, "f": f.NodeId}
		for name, mode := range map[string]uint32{"reg": unix.S_IFREG, "fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK} {
			var out fuse.EntryOut
			g.must("mknod", g.Mknod(nil, &fuse.MknodIn{InHeader: as(user, dir.NodeId), Mode: mode | 0o600}, name, &out))
			nodes[name] = out.NodeId
		}
		var link fuse.EntryOut
		h := as(user, dir.NodeId)
		g.must("symlink", g.Symlink(nil, &h, "text", "link", &link))
		g.is("a link", link.NodeId, 1000, 100, 0o777)
		var tmp fuse.CreateOut
		if s := g.Tmpfile(nil, &fuse.CreateIn{InHeader: h, Flags: rdwr, Mode: 0o600}, &tmp); s.Ok() {
			g.must("link", g.link(tmp.NodeId, dir.NodeId, "tmp"))
			nodes["tmp"] = g.lookupName(dir.NodeId, "tmp").NodeId
		}
		for name, node := range nodes {
			mode := uint32(0o600)
			if name == "dir" {
				mode = 0o755
			}
			g.is(name, node, 1000, 100, mode)
			g.must("chmod", g.chmodTo(node, 0o640))
			g.is(name, node, 1000, 100, 0o640)
			g.must("chown", g.chown(node, 7, 8))
			g.is(name, node, 7, 8, 0o640)
			g.must("chown to root", g.chown(node, 0, 0))
			g.is(name, node, 0, 0, 0o640)
			g.must("chown back", g.chown(node, 1000, 100))
		}
		g.must("rename", g.rename(dir.NodeId, "f", root, "g", 0))
		g.must("link", g.link(f.NodeId, root, "h"))
		for _, name := range []string{"g", "h"} {
			if e := g.lookupName(root, name); e.Owner != user || e.NodeId != f.NodeId {
				t.Errorf("%s is %+v", name, e)
			}
		}
		if !g.noXattr && g.attribute("g") != "1000:100:0640" {
			t.Errorf("the attribute is %q", g.attribute("g"))
		}
		g.want("chown to nobody that there is", g.chown(f.NodeId, invalidID, 0), fuse.EINVAL)
	})
}

// hostModes are the effects on the host's mode and on the attribute.
var hostModes = []struct {
	kind           string
	had, mode      uint32 // the host's before, and the guest's new one
	host           uint32
	attribute      string
	who            fuse.Owner
	beforeOverride string
}{
	{kind: "file", mode: 0o644, host: 0o644},
	{kind: "file", mode: 0o755, host: 0o755},
	{kind: "file", mode: 0o600, host: 0o600},
	{kind: "file", mode: 0o666, host: 0o644, attribute: "0:0:0666"},
	{kind: "file", mode: 0o444, host: 0o644, attribute: "0:0:0444"},
	{kind: "file", mode: 0, host: 0o600, attribute: "0:0:00"},
	{kind: "file", mode: 0o4755, host: 0o755, attribute: "0:0:04755"},
	{kind: "file", mode: 0o2755, host: 0o755, attribute: "0:0:02755"},
	{kind: "file", mode: 0o1644, host: 0o644, attribute: "0:0:01644"},
	{kind: "file", had: 0o664, mode: 0o666, host: 0o664, attribute: "0:0:0666"},
	{kind: "file", had: 0o666, mode: 0o664, host: 0o664},
	{kind: "file", had: 0o400, mode: 0o444, host: 0o644, attribute: "0:0:0444"},
	{kind: "file", had: 0o644, mode: 0o600, host: 0o600, beforeOverride: "0:0:0777"},
	{kind: "file", had: 0o644, mode: 0o600, host: 0o600, beforeOverride: "7:8:0777", attribute: "7:8:0600"},
	{kind: "dir", mode: 0o755, host: 0o755},
	{kind: "dir", mode: 0o700, host: 0o700},
	{kind: "dir", mode: 0, host: 0o700, attribute: "0:0:00"},
	{kind: "dir", mode: 0o1777, host: 0o755, attribute: "0:0:01777"},
	{kind: "dir", mode: 0o2775, host: 0o755, attribute: "0:0:02775"},
	{kind: "dir", had: 0o1777, mode: 0o1777, host: 0o1777},
	{kind: "dir", had: 0o1777, mode: 0o755, host: 0o755},
	{kind: "file", mode: 0o644, host: 0o644, who: user, attribute: "1000:100:0644"},
	{kind: "dir", mode: 0o755, host: 0o755, who: user, attribute: "1000:100:0755"},
}

// TestHostMode: the host's mode gives no more than the guest's, and lets this user
// read and write. An override exists only if the host's mode does not say everything.
func TestHostMode(t *testing.T) {
	for _, test := range hostModes {
		g := share(t, Options{})
		if g.noXattr {
			t.Skip("the host's file system has no attributes")
		}
		var node uint64
		switch {
		case test.had == 0 && test.kind == "dir":
			node = g.mkdirAs(test.who, root, "x", test.mode).NodeId
		case test.had == 0:
			node = g.createAs(test.who, root, "x", test.mode).NodeId
		default:
			path := filepath.Join(g.host, "x")
			if test.kind == "dir" {
				unix.Mkdir(path, 0o700)
			} else {
				write(t, path, "")
			}
			if err := unix.Chmod(path, test.had); err != nil {
				t.Fatal(err)
			}
			if test.beforeOverride != "" {
				g.setAttribute("x", test.beforeOverride)
			}
			node = g.lookupName(root, "x").NodeId
			g.must("chmod", g.chmodTo(node, test.mode))
		}
		if a := g.getAttr(node); a.Mode&permissions != test.mode {
			t.Errorf("%+v: the guest sees mode %o", test, a.Mode)
		}
		if mode := g.hostMode("x") & permissions; mode != test.host || g.attribute("x") != test.attribute {
			t.Errorf("%+v: the host has mode %o, %q", test, mode, g.attribute("x"))
		}
	}
}

// TestSetGroupID: a file made in such a directory gets its group, whoever makes it. A
// user outside that group gets no rights from it.
func TestSetGroupID(t *testing.T) {
	eachStore(t, Options{}, func(t *testing.T, g *guest) {
		dir := g.makeDir(root, "dir")
		g.must("chown", g.chown(dir, 0, 50))
		g.must("chmod", g.chmodTo(dir, 0o2777))
		g.is("a directory", g.mkdirAs(user, dir, "sub", 0o755).NodeId, 1000, 50, 0o2755)
		g.is("a file", g.createAs(user, dir, "f", 0o644).NodeId, 1000, 50, 0o644)
		g.is("a program", g.createAs(user, dir, "g", 0o2755).NodeId, 1000, 50, 0o755)
		g.is("a program of root's", g.createAs(fuse.Owner{}, dir, "h", 0o2755).NodeId, 0, 50, 0o2755)
		g.is("a program of the group's", g.createAs(fuse.Owner{Uid: 7, Gid: 50}, dir, "i", 0o2755).NodeId, 7, 50, 0o2755)
	})
}

// TestKill: a program loses its special rights when a user without privilege changes
// it, or when it is given away.
func TestKill(t *testing.T) {
	eachStore(t, Options{}, func(t *testing.T, g *guest) {
		f := g.createAs(fuse.Owner{}, root, "f", 0o777)
		for what, change := range map[string]func() fuse.Status{
			"write": func() fuse.Status {
				_, s := g.WriteFrom(f.Fh, [][]byte{[]byte("x")}, 0, true)
				return s
			},
			"truncate": func() fuse.Status {
				_, s := g.set(f.NodeId, fuse.FATTR_SIZE|fuse.FATTR_KILL_SUIDGID, func(*fuse.SetAttrIn) {})
				return s
			},
			"open": func() fuse.Status {
				return g.Open(nil, &fuse.OpenIn{InHeader: head(f.NodeId), Flags: unix.O_TRUNC | rdwr, Mode: fuse.OPEN_KILL_SUIDGID}, new(fuse.OpenOut))
			},
			"create": func() fuse.Status {
				in := fuse.CreateIn{InHeader: head(root), Flags: unix.O_TRUNC | rdwr, OpenFlags: fuse.OPEN_KILL_SUIDGID}
				return g.Create(nil, &in, "f", new(fuse.CreateOut))
			},
			"chown": func() fuse.Status { return g.chown(f.NodeId, 0, 0) },
			"fallocate": func() fuse.Status {
				s := g.Fallocate(nil, &fuse.FallocateIn{Fh: f.Fh, Length: 10})
				if s == fuse.Status(unix.EOPNOTSUPP) {
					t.Skip("the host's file system has no fallocate")
				}
				return s
			},
		} {
			g.must("chmod", g.chmodTo(f.NodeId, 0o6755))
			g.must(what, change())
			g.is(what, f.NodeId, 0, 0, 0o755)
		}
		g.must("chmod", g.chmodTo(f.NodeId, 0o6745))
		_, s := g.WriteFrom(f.Fh, [][]byte{[]byte("x")}, 0, false)
		g.must("write of root's", s)
		g.is("root's write", f.NodeId, 0, 0, 0o6745)
		g.must("chown", g.chown(f.NodeId, 5, 5))
		g.is("set-group-ID without x is no right", f.NodeId, 5, 5, 0o2745)
		if g.hostMode("f")&special != 0 {
			t.Errorf("the host has mode %o", g.hostMode("f"))
		}
	})
}

// TestOverrides: a file's attribute in all its forms, and values that count as none.
func TestOverrides(t *testing.T) {
	g := share(t, Options{})
	if g.noXattr {
		t.Skip("the host's file system has no attributes")
	}
	write(t, filepath.Join(g.host, "f"), "")
	f := g.lookupName(root, "f").NodeId
	for value, want := range map[string]override{
		"1000:100:0640":           {1000, 100, 0o640},
		"1000:100:640":            {1000, 100, 0o640},
		"0:0:0100755":             {0, 0, 0o755},
		"1000:100:4711:file":      {1000, 100, 0o4711},
		"4294967294:4294967294:0": {4294967294, 4294967294, 0},
	} {
		g.setAttribute("f", value)
		g.is(value, f, want.UID, want.GID, want.Mode)
	}
	for _, value := range malformed {
		g.setAttribute("f", value)
		g.is(value, f, 0, 0, 0o644)
		g.must("chown", g.chown(f, 1, 2))
		g.is("after "+value, f, 1, 2, 0o644)
	}
	g.setAttribute("f", "1000:100:04755")
	g.owner.uid++ // as if another user owned it
	g.is("of another", f, nobody, 0, 0o644)
	g.want("chown of another's", g.chown(f, 1000, 1000), fuse.EPERM)
}

// malformed are attribute values that are ignored.
var malformed = []string{
	"", ":", "::", "1:2", "1:2:", ":2:0644", "1::0644", "x:2:0644", "1:2:0899", "-1:2:0644", "+1:2:0644", "1:-1:0644", " 1:2:0644", "1:2:0644 ", "1:2:0644\n",
	"4294967295:0:0644", "0:4294967295:0644", "4294967296:0:0644", "99999999999999999999:0:0644", "0:0:0777777777", "0:0:01000000", "0:0:0040755", "0:0:0120777",
	"0:0:0020666", "0:0:0644:", "0:0:0644:dir", "0:0:0644:symlink", "0:0:0644:char-1-1", "0:0:0644:block-8-0", "0:0:0644:pipe", "0:0:0644:socket", "0:0:0644:file:x",
	"0:0:0644:\x00", "\x00", "1:2:0644\x00", "0x1:2:0644", "1:2:0o644",
	"000000000000000000000000000000000000000000000000000000000000000000001:2:0644",
}

// FuzzOverride: an attribute is untrusted bytes. One that is honoured means the same
// as its normal form.
func FuzzOverride(f *testing.F) {
	for _, value := range append(malformed, "1000:100:0640", "0:0:0100755", "0:0:0755:dir") {
		f.Add([]byte(value), uint32(unix.S_IFREG))
		f.Add([]byte(value), uint32(unix.S_IFDIR))
	}
	f.Fuzz(func(t *testing.T, value []byte, kind uint32) {
		o, ok := parseOverride(value, kind&unix.S_IFMT)
		if !ok {
			return
		}
		again, ok := parseOverride([]byte(o.String()), kind&unix.S_IFMT)
		if !o.valid() || !ok || again != o {
			t.Errorf("%q is %+v, and that %q", value, o, o.String())
		}
	})
}

// TestOverrideHidden: the guest does not see that attribute, and cannot make one.
func TestOverrideHidden(t *testing.T) {
	g := share(t, Options{})
	if g.noXattr {
		t.Skip("the host's file system has no attributes")
	}
	f := g.createAs(user, root, "f", 0o600)
	h := head(f.NodeId)
	dest := make([]byte, 100)
	n, s := g.GetXAttr(nil, &h, overrideXattr, dest)
	if g.want("getxattr", s, fuse.ENODATA); n != 0 {
		t.Errorf("%d bytes", n)
	}
	n, s = g.ListXAttr(nil, &h, dest)
	if g.must("listxattr", s); n != 0 {
		t.Errorf("listed %q", dest[:n])
	}
	g.want("setxattr", g.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h, Size: 5}, overrideXattr, []byte("0:0:0")), fuse.EPERM)
	g.want("removexattr", g.RemoveXAttr(nil, &h, overrideXattr), fuse.ENODATA)
	if got := g.attribute("f"); got != "1000:100:0600" {
		t.Errorf("the attribute is %q", got)
	}
}

// TestShownOwner: in the guest, this user's files can belong to a user other than
// root, without any attribute.
func TestShownOwner(t *testing.T) {
	g := share(t, Options{Owner: user})
	write(t, filepath.Join(g.host, "f"), "")
	g.is("a file of the host's", g.lookupName(root, "f").NodeId, 1000, 100, 0o644)
	g.is("a file of his", g.createAs(user, root, "g", 0o644).NodeId, 1000, 100, 0o644)
	if got := g.attribute("g"); got != "" {
		t.Errorf("it has the attribute %q", got)
	}
	g.is("a file of root's", g.createAs(fuse.Owner{}, root, "h", 0o644).NodeId, 0, 0, 0o644)
}

// TestMemory: without attributes, an owner is kept by inode, no longer than the inode
// exists, and up to a bound.
func TestMemory(t *testing.T) {
	g := share(t, Options{Files: 20})
	g.noXattr = true
	f := g.createAs(user, root, "f", 0o600)
	g.Release(nil, &fuse.ReleaseIn{Fh: f.Fh})
	g.Forget(f.NodeId, 1)
	g.want("a node that was forgotten", g.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(f.NodeId)}, new(fuse.AttrOut)), fuse.Status(unix.ESTALE))
	saved := g.save()
	for _, h := range []*guest{g, g.remembering(saved)} {
		if e := h.lookupName(root, "f"); e.Owner != user {
			t.Errorf("%+v after it was forgotten", e.Attr)
		}
	}
	g.must("unlink", g.unlink(root, "f"))
	g.Forget(f.NodeId, 1)
	if g.open != 0 || g.memories != 0 {
		t.Errorf("%d descriptors, %d memories are left", g.open, g.memories)
	}
	for i := range 6 {
		name := string(rune('a' + i))
		e := g.createAs(user, root, name, 0o600)
		want := user
		if i >= 5 { // a quarter of 20
			want = fuse.Owner{}
		}
		g.is(name, e.NodeId, want.Uid, want.Gid, 0o600)
		g.Release(nil, &fuse.ReleaseIn{Fh: e.Fh})
		g.Forget(e.NodeId, 1)
	}
	f2 := g.lookupName(root, "f"[:0]+string(rune('a'+5)))
	g.want("chown of one more", g.chown(f2.NodeId, 1, 1), fuse.EPERM)
	g.forgetsMeanwhile()
	g.Reset()
	if g.open != 0 || g.memories != 0 {
		t.Errorf("%d descriptors, %d memories after a reset", g.open, g.memories)
	}
	g.is("after a reset", g.lookupName(root, "a").NodeId, 0, 0, 0o600)
	g.must("chown of the root", g.chown(root, 1000, 1000))
	g.remembering(g.save()).is("the root", root, 1000, 1000, 0o755)
}

// forgetsMeanwhile checks that two unused nodes are closed: one that is forgotten
// while it is given away, and one that no longer needs memory.
func (g *guest) forgetsMeanwhile() {
	g.Helper()
	open, memories := g.open, g.memories
	write(g, filepath.Join(g.host, "late"), "")
	n, s := g.use(g.lookupName(root, "late").NodeId)
	g.must("use", s)
	g.Forget(n.id, 1)
	if err := g.settle(n, override{1, 1, 0o644}, false); err != unix.EPERM {
		g.Errorf("a node that was forgotten was given away: %v", err)
	}
	g.done(n)
	if g.open != open || g.memories != memories {
		g.Errorf("%d descriptors, %d memories more", g.open-open, g.memories-memories)
	}
	n = g.known(g.keyOf("a"))
	g.Forget(n.id, 1)
	if err := g.settle(n, override{0, 0, 0o600}, false); err != nil {
		g.Error(err)
	}
	g.done(n)
	if g.open != open-1 || g.memories != memories-1 {
		g.Errorf("%d descriptors, %d memories less", open-g.open, memories-g.memories)
	}
	g.is("known anew", g.lookupName(root, "a").NodeId, 0, 0, 0o600)
	g.Forget(g.lookupName(root, "a").NodeId, 2)
}

func (g *guest) keyOf(name string) key {
	g.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(g.host, name), &st); err != nil {
		g.Fatal(err)
	}
	return key{st.Dev, st.Ino}
}

// remembering is elsewhere on a file system without attributes.
func (g *guest) remembering(saved []byte) *guest {
	g.Helper()
	h := g.elsewhere([]byte(`{"Last":1}`), Options{Files: 20})
	h.noXattr = true
	if err := h.Load(saved); err != nil {
		g.Fatal(err)
	}
	return h
}

// TestOwnerState: open files and their owners survive a pause, and invalid owners are
// refused.
func TestOwnerState(t *testing.T) {
	g := share(t, Options{})
	f := g.createAs(user, root, "f", 0o440)
	g.put(f.Fh, "text", 0)
	h := g.elsewhere(g.save(), Options{})
	h.is("after a pause", f.NodeId, 1000, 100, 0o440)
	if got := h.content(f.Fh); got != "text" {
		t.Errorf("the file has %q", got)
	}
	h.put(f.Fh, "more", 4)
	for _, bad := range []string{
		`{"Last":5,"Owner":{"UID":4294967295,"GID":0,"Mode":0}}`, `{"Last":5,"Nodes":[{"ID":2,"Lookups":1,"Owner":{"UID":0,"GID":0,"Mode":65536}}]}`,
	} {
		if err := h.Load([]byte(bad)); err == nil {
			t.Errorf("%s was loaded", bad)
		}
	}
}

// TestReadOnlyOwner: a read-only share shows owners, and changes none.
func TestReadOnlyOwner(t *testing.T) {
	g := share(t, Options{ReadOnly: true})
	if g.noXattr {
		t.Skip("the host's file system has no attributes")
	}
	write(t, filepath.Join(g.host, "f"), "")
	g.setAttribute("f", "1000:100:0600")
	f := g.lookupName(root, "f").NodeId
	g.is("a file", f, 1000, 100, 0o600)
	g.want("chown", g.chown(f, 0, 0), fuse.EROFS)
	g.want("chmod", g.chmodTo(f, 0o644), fuse.EROFS)
}

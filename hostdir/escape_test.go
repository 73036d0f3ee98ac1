package hostdir

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// bad are names that are not a single path component.
var bad = []string{
	"", ".", "..", "/", "//", "a/b", "/etc/passwd", "../secret", "a/../../secret", "./secret", "..\x00", "a\x00b", "\x00",
	strings.Repeat("../", 20) + "etc/passwd", strings.Repeat("x", 256), "/proc/self/root", "sub/",
}

// TestNames: no request accepts such a name.
func TestNames(t *testing.T) {
	g := share(t, Options{})
	sub := g.makeDir(root, "sub")
	f, s := g.createFile(root, "f", rdwr, 0o600)
	g.must("create", s)
	var entry fuse.EntryOut
	var created fuse.CreateOut
	for _, dir := range []uint64{root, sub} {
		for _, name := range bad {
			h := head(dir)
			for what, s := range map[string]fuse.Status{
				"lookup":  g.Lookup(nil, &h, name, &entry),
				"create":  g.Create(nil, &fuse.CreateIn{InHeader: h, Flags: rdwr}, name, &created),
				"mknod":   g.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: unix.S_IFREG}, name, &entry),
				"mkdir":   g.Mkdir(nil, &fuse.MkdirIn{InHeader: h}, name, &entry),
				"symlink": g.Symlink(nil, &h, "text", name, &entry),
				"link":    g.link(f.NodeId, dir, name),
				"unlink":  g.Unlink(nil, &h, name),
				"rmdir":   g.Rmdir(nil, &h, name),
				"from":    g.rename(dir, name, root, "new", 0),
				"to":      g.rename(root, "f", dir, name, 0),
				"swap":    g.rename(root, "f", dir, name, unix.RENAME_EXCHANGE),
			} {
				if s != fuse.EINVAL && s != fuse.Status(unix.ENAMETOOLONG) {
					t.Errorf("%s of %q: %v", what, name, s)
				}
			}
		}
	}
	g.intact()
}

// intact checks that nothing has changed beside the share.
func (g *guest) intact() {
	g.Helper()
	names, err := os.ReadDir(filepath.Dir(g.host))
	if err != nil || len(names) != 2 {
		g.Errorf("beside the share there are %v, %v", names, err)
	}
	if got := g.hostContent("../secret"); got != secret {
		g.Errorf("the secret is %q", got)
	}
}

// TestLinks: a link is text, whoever makes it and wherever it leads.
func TestLinks(t *testing.T) {
	g := share(t, Options{})
	for i, text := range []string{
		"../secret", filepath.Join(g.host, "../secret"), "/etc/passwd", "/", "..", "/proc/self/root", "/proc/self/fd/0", "/dev/mem", "loop", ".",
	} {
		name := string(rune('a' + i))
		l := g.symlink(root, name, text)
		if i%2 == 0 { // links of the host are no different
			if err := os.Symlink(text, filepath.Join(g.host, name+"-host")); err != nil {
				t.Fatal(err)
			}
			l = g.lookupName(root, name+"-host")
		}
		if l.Mode&unix.S_IFMT != unix.S_IFLNK {
			t.Errorf("%s is shown as what it leads to", text)
		}
		g.want("open", second(g.openNode(l.NodeId, unix.O_RDONLY)), fuse.Status(unix.ELOOP))
		g.want("truncate", second(g.set(l.NodeId, fuse.FATTR_SIZE, func(*fuse.SetAttrIn) {})), fuse.EINVAL)
		g.want("chmod", second(g.set(l.NodeId, fuse.FATTR_MODE, func(in *fuse.SetAttrIn) { in.Mode = 0o777 })), fuse.Status(unix.EOPNOTSUPP))
		g.want("opendir", g.OpenDir(nil, &fuse.OpenIn{InHeader: head(l.NodeId)}, new(fuse.OpenOut)), fuse.ENOTDIR)
		g.want("lookup below", second(g.tryLookup(l.NodeId, "secret")), fuse.ENOTDIR)
		g.want("create over", second(g.createFile(root, name, rdwr, 0o600)), fuse.Status(unix.ELOOP))
		g.want("create below", second(g.createFile(l.NodeId, "new", rdwr, 0o600)), fuse.ENOTDIR)
		g.must("link", g.link(l.NodeId, root, name+"-hard"))
		if hard := g.lookupName(root, name+"-hard"); hard.NodeId != l.NodeId {
			t.Errorf("the hard link of %s leads elsewhere", text)
		}
	}
	g.intact()
}

// TestSpecial: the host's pipes, sockets and devices are visible but never opened,
// and the guest makes no device.
func TestSpecial(t *testing.T) {
	g := share(t, Options{})
	for _, test := range []struct {
		name string
		mode uint32
		want fuse.Status
	}{
		{"pipe", unix.S_IFIFO, fuse.OK}, {"socket", unix.S_IFSOCK, fuse.OK},
		{"char", unix.S_IFCHR, fuse.EPERM}, {"block", unix.S_IFBLK, fuse.EPERM}, {"whiteout", unix.S_IFCHR, fuse.EPERM},
		{"directory", unix.S_IFDIR, fuse.EPERM}, {"link", unix.S_IFLNK, fuse.EPERM}, {"all", unix.S_IFMT, fuse.EPERM},
	} {
		_, s := g.mknod(test.name, test.mode|0o600, 0x0101)
		g.want("mknod "+test.name, s, test.want)
	}
	if err := unix.Mknod(filepath.Join(g.host, "null"), unix.S_IFCHR|0o666, 0x0103); err != nil {
		t.Logf("no device here: %v", err)
	}
	for _, name := range []string{"pipe", "socket", "null"} {
		e, s := g.tryLookup(root, name)
		if s == fuse.ENOENT && name == "null" {
			continue
		}
		if g.must(name, s); e.Rdev != 0 {
			t.Errorf("%s has the host's device number", name)
		}
		for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, rdwr} {
			g.want("open "+name, second(g.openNode(e.NodeId, flags)), fuse.EPERM)
			g.want("create over "+name, second(g.createFile(root, name, flags, 0o600)), fuse.EPERM)
		}
		g.want("truncate "+name, second(g.set(e.NodeId, fuse.FATTR_SIZE, func(*fuse.SetAttrIn) {})), fuse.EINVAL)
		g.must("chmod "+name, second(g.set(e.NodeId, fuse.FATTR_MODE, func(in *fuse.SetAttrIn) { in.Mode = 0o600 })))
	}
}

// TestSpecialBits: no program gets the host user's rights through a guest.
func TestSpecialBits(t *testing.T) {
	g := share(t, Options{})
	f, s := g.createFile(root, "f", rdwr, 0o6755)
	g.must("create", s)
	_, s = g.mknod("node", unix.S_IFREG|0o6755, 0)
	g.must("mknod", s)
	a, s := g.set(f.NodeId, fuse.FATTR_MODE, func(in *fuse.SetAttrIn) { in.Mode = 0o7755 })
	if g.must("chmod", s); a.Mode != unix.S_IFREG|0o7755 {
		t.Errorf("mode %o", a.Mode)
	}
	for _, name := range []string{"f", "node"} {
		if mode := g.hostMode(name); mode&special != 0 {
			t.Errorf("%s has mode %o", name, mode)
		}
	}
	path := filepath.Join(g.host, "program")
	write(t, path, "#!")
	if err := os.Chmod(path, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	p := g.lookupName(root, "program")
	if p.Mode&special != 0 {
		t.Errorf("the guest sees mode %o", p.Mode)
	}
	g.want("open for writing", second(g.openNode(p.NodeId, rdwr)), fuse.EPERM)
	g.want("truncate", second(g.set(p.NodeId, fuse.FATTR_SIZE, func(*fuse.SetAttrIn) {})), fuse.EPERM)
	g.must("open", second(g.openNode(p.NodeId, unix.O_RDONLY)))
	d := g.makeDir(root, "d")
	a, s = g.set(d, fuse.FATTR_MODE, func(in *fuse.SetAttrIn) { in.Mode = 0o2775 })
	if g.must("chmod of a directory", s); a.Mode != unix.S_IFDIR|0o2775 || g.hostMode("d") != unix.S_IFDIR|0o755 {
		t.Errorf("a directory has mode %o, the host's %o", a.Mode, g.hostMode("d"))
	}
}

// TestRoot: there is nothing above the root, and it cannot be moved or removed.
func TestRoot(t *testing.T) {
	g := share(t, Options{})
	for _, e := range g.readDirAll(g.openDir(root), 0, true, 4096) {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Dir(g.host), &st); err != nil {
			t.Fatal(err)
		}
		if e.ino == st.Ino || e.name == ".." && e.node != 0 {
			t.Errorf("%+v tells of what is above", e)
		}
	}
	g.want("link of the root", g.link(root, root, "x"), fuse.EPERM)
	sub := g.makeDir(root, "sub")
	g.want("rename into itself", g.rename(root, "sub", sub, "x", 0), fuse.EINVAL)
}

// TestMoved: the guest keeps an open directory that the host moves out of the share,
// as any program does, but reaches nothing else through it.
func TestMoved(t *testing.T) {
	g := share(t, Options{})
	a := g.makeDir(root, "a")
	b := g.makeDir(a, "b")
	out := filepath.Join(filepath.Dir(g.host), "moved")
	if err := os.Rename(filepath.Join(g.host, "a"), out); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []uint64{a, b} {
		for _, name := range []string{"..", "../secret", "secret", "."} {
			if _, s := g.tryLookup(dir, name); s.Ok() {
				t.Errorf("%q below what was moved", name)
			}
		}
		e, s := g.tryLookup(dir, "b")
		if s.Ok() && e.NodeId != b {
			t.Error("another directory")
		}
	}
	if err := os.RemoveAll(out); err != nil {
		t.Fatal(err)
	}
	g.want("create in what was removed", second(g.createFile(a, "x", rdwr, 0o600)), fuse.ENOENT)
}

// TestRaces: another process swaps what names stand for, as fast as it can, while the
// guest uses them. The guest never sees what the links lead to.
func TestRaces(t *testing.T) {
	g := share(t, Options{})
	inside := filepath.Join(g.host, "inside")
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(g.host, "file"), "inside")
	write(t, filepath.Join(inside, "secret"), "inside")
	g.symlink(root, "link", "../secret")
	g.symlink(root, "linkdir", "..")
	if err := unix.Mkfifo(filepath.Join(g.host, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := unix.Open(g.host, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	stop := make(chan struct{})
	var swaps sync.WaitGroup
	for _, pair := range [][2]string{{"file", "link"}, {"inside", "linkdir"}, {"file", "pipe"}} {
		swaps.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					unix.Renameat2(dir, pair[0], dir, pair[1], unix.RENAME_EXCHANGE)
					runtime.Gosched()
				}
			}
		})
	}
	end := time.Now().Add(2 * time.Second)
	opened := 0
	for time.Now().Before(end) && !t.Failed() {
		opened += g.tryAll()
	}
	close(stop)
	swaps.Wait()
	if opened == 0 {
		t.Error("nothing was ever opened")
	}
	g.intact()
}

// tryAll uses all names that are swapped, and returns how many files it could open.
func (g *guest) tryAll() (opened int) {
	look := func(handle uint64) {
		if got := g.content(handle); got != "inside" {
			g.Errorf("the guest reads %q", got)
		}
		g.Release(nil, &fuse.ReleaseIn{Fh: handle})
		opened++
	}
	for _, name := range []string{"file", "link", "pipe"} {
		if e, s := g.tryLookup(root, name); s.Ok() {
			if out, s := g.openNode(e.NodeId, rdwr); s.Ok() {
				look(out.Fh)
			}
			g.Forget(e.NodeId, 1)
		}
		if out, s := g.createFile(root, name, rdwr, 0o600); s.Ok() {
			look(out.Fh)
			g.Forget(out.NodeId, 1)
		}
	}
	for _, name := range []string{"inside", "linkdir"} {
		e, s := g.tryLookup(root, name)
		if !s.Ok() {
			continue
		}
		if f, s := g.tryLookup(e.NodeId, "secret"); s.Ok() {
			if out, s := g.openNode(f.NodeId, unix.O_RDONLY); s.Ok() {
				look(out.Fh)
			}
			g.Forget(f.NodeId, 1)
		}
		g.Forget(e.NodeId, 1)
	}
	return opened
}

// TestNoOpenat2: everything works the same without openat2.
func TestNoOpenat2(t *testing.T) {
	steps = true
	defer func() { steps = false }()
	for name, test := range map[string]func(*testing.T){
		"Names": TestNames, "Links": TestLinks, "Special": TestSpecial, "Root": TestRoot, "Moved": TestMoved, "Races": TestRaces,
		"Mounts": TestMounts, "Files": TestFiles, "Tree": TestTree, "State": TestState, "StateHostile": TestStateHostile,
	} {
		t.Run(name, test)
	}
	g := share(t, Options{})
	g.makeDir(g.makeDir(root, "a"), "b")
	g.symlink(root, "l", "a")
	for path, want := range map[string]error{
		"a/b": nil, "a": nil, "l": nil, "l/b": unix.ENOTDIR, "a/x": unix.ENOENT, "a/../a": unix.EXDEV, "/a": unix.EXDEV, "a/": unix.EXDEV, "": unix.EXDEV,
	} {
		fd, err := g.handleAt(g.root, path)
		if closeFD(fd); err != want {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
	}
}

// TestRefused: directories that show the host's kernel or its devices are not shared,
// and do not show up below a share.
func TestRefused(t *testing.T) {
	for _, dir := range []string{
		"/proc", "/proc/self", "/sys", "/sys/kernel", "/dev", "/dev/pts", "/dev/mqueue", "/dev/hugepages", "/sys/fs/bpf", "/sys/kernel/debug",
		"/sys/kernel/tracing", "/sys/kernel/security", "/sys/kernel/config", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu", "/sys/fs/pstore", "/sys/fs/fuse/connections",
		"/sys/firmware/efi/efivars", "/proc/sys/fs/binfmt_misc", "/sys/fs/selinux",
	} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		d, err := Open(dir, Options{ReadOnly: true})
		if err == nil {
			d.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "not files; share a directory") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	d, err := Open("/", Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	g := &guest{t, d, "/"}
	for _, name := range []string{"proc", "sys", "dev"} {
		if id, err := idOf("/" + name); err == nil && id != must(mountID(d.root)) {
			g.want(name+" below the root", second(g.tryLookup(root, name)), fuse.EXDEV)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func idOf(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return mountID(fd)
}

// TestRefusedDevices: a container's /dev is a tmpfs with devices in it. Any other
// tmpfs is fine.
func TestRefusedDevices(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("dev", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	d, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if err := unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, 0x0103); err != nil {
		t.Skipf("no device here: %v", err)
	}
	if d, err = Open(dir, Options{}); err == nil {
		d.Close()
		t.Error("a directory with devices is shared")
	}
}

// TestMountType: the type in the mountinfo line of a mount ID.
func TestMountType(t *testing.T) {
	const text = "24 1 0:6 / /dev rw,nosuid shared:2 - devtmpfs dev rw\n244 1 0:6 / /a\\040b rw - tmpfs none rw\n5 bad\n"
	for id, want := range map[int]string{24: "devtmpfs", 244: "tmpfs", 5: "", 2: "", 4: ""} {
		if got := mountType([]byte(text), id); got != want {
			t.Errorf("%d: %q, want %q", id, got, want)
		}
	}
}

// TestMounts: a file system mounted in the share is not part of it.
func TestMounts(t *testing.T) {
	g := share(t, Options{})
	g.makeDir(root, "mount")
	at := filepath.Join(g.host, "mount")
	if err := unix.Mount("proc", at, "proc", 0, ""); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	g.want("lookup of a mount", second(g.tryLookup(root, "mount")), fuse.EXDEV)
	found := false
	for _, e := range g.readDirAll(g.openDir(root), 0, true, 4096) {
		if e.name == "mount" {
			found = true
			if e.node != 0 {
				t.Error("a directory tells of what is mounted there")
			}
		}
	}
	if !found {
		t.Error("the name is not there")
	}
}

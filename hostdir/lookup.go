package hostdir

import (
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// maxName is NAME_MAX of Linux.
const maxName = 255

// checkName checks that a guest's name is one path component.
func checkName(name string) fuse.Status {
	switch {
	case name == "" || name == "." || name == "..":
		return fuse.EINVAL
	case len(name) > maxName:
		return fuse.Status(unix.ENAMETOOLONG)
	case strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0:
		return fuse.EINVAL
	}
	return fuse.OK
}

// beneath tells the kernel how to look up names: below the directory, through no link
// of any kind, and not into other mounts.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV

// handleAt returns an O_PATH descriptor for a name, which may be a link. A saved state
// may give a path of several components.
func (d *Dir) handleAt(dir int, name string) (int, error) {
	if d.noOpenat2 {
		return d.stepAt(dir, name)
	}
	return openBeneath(dir, name)
}

// openBeneath is openat2(2), from Linux 5.6.
func openBeneath(dir int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath}
	for tries := 1; ; tries++ {
		fd, err := unix.Openat2(dir, name, &how) // again, below
		// EAGAIN: the kernel cannot tell because of a concurrent rename.
		if err != unix.EINTR && err != unix.EAGAIN || tries == 100 {
			return fd, err
		}
	}
}

// Openat2 reports whether this process may call openat2(2): hardened services,
// containers with an old filter and old kernels return ENOSYS or EPERM.
func Openat2() bool {
	fd, err := openBeneath(unix.AT_FDCWD, ".")
	closeFD(fd)
	return err != unix.ENOSYS && err != unix.EPERM
}

// stepAt works without openat2. It opens one component after another, each below an
// open directory, so no link or ".." can lead elsewhere. Whether a component is on
// another mount is known only once it is open; O_PATH has no side effects on it.
func (d *Dir) stepAt(dir int, name string) (int, error) {
	at := -1 // last descriptor opened here
	for name := range strings.SplitSeq(name, "/") {
		if !checkName(name).Ok() {
			closeFD(at)
			return -1, unix.EXDEV
		}
		fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
		closeFD(at)
		if err == nil {
			if id, e := mountID(fd); e != nil || id != d.mount {
				unix.Close(fd)
				err = unix.EXDEV
			}
		}
		if err != nil {
			return -1, err
		}
		dir, at = fd, fd
	}
	return at, nil
}

// reopen opens the inode of an O_PATH descriptor, which must be a regular file or a
// directory. It looks up no name.
func (d *Dir) reopen(fd, flags int) (int, error) {
	return openat(d.proc, strconv.Itoa(fd), flags|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
}

// procPath is the /proc path of a descriptor, for calls that take only paths.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Lookup implements fuse.RawFileSystem.
func (d *Dir) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if s := checkName(name); !s.Ok() {
		return s
	}
	parent, s := d.useDir(in.NodeId)
	if !s.Ok() {
		return s
	}
	defer d.done(parent)
	return d.lookup(parent.fd, name, out)
}

// lookup tells the guest what a name refers to. An inode that the guest knows costs one
// system call.
func (d *Dir) lookup(dir int, name string, out *fuse.EntryOut) fuse.Status {
	var st unix.Stat_t
	if err := fstatat(dir, name, &st); err != nil {
		return status(err)
	}
	if n := d.known(key{st.Dev, st.Ino}); n != nil {
		d.entry(n, &st, out)
		d.done(n)
		return fuse.OK
	}
	fd, err := d.handleAt(dir, name)
	if err != nil {
		return status(err)
	}
	return d.tell(fd, out)
}

// tell tells the guest of an inode. It takes over its O_PATH descriptor.
func (d *Dir) tell(fd int, out *fuse.EntryOut) fuse.Status {
	n, st, s := d.addPath(fd)
	if s.Ok() {
		d.entry(n, st, out)
		d.done(n)
	}
	return s
}

// addPath is add for an O_PATH descriptor of any kind of inode.
func (d *Dir) addPath(fd int) (*node, *unix.Stat_t, fuse.Status) {
	st := new(unix.Stat_t)
	if err := fstat(fd, st); err != nil {
		unix.Close(fd)
		return nil, nil, status(err)
	}
	n, s := d.add(fd, st)
	return n, st, s
}

func (d *Dir) entry(n *node, st *unix.Stat_t, out *fuse.EntryOut) {
	*out = fuse.EntryOut{NodeId: n.id}
	out.SetEntryTimeout(timeout)
	out.SetAttrTimeout(timeout)
	d.attr(n, st, &out.Attr)
}

// attr fills in what the guest is told of an inode, whose node the caller uses. It
// omits device numbers: in the guest they would mean other devices.
func (d *Dir) attr(n *node, st *unix.Stat_t, out *fuse.Attr) {
	shown := d.shown(n, st)
	*out = fuse.Attr{
		Ino: d.inode(st), Size: uint64(st.Size), Blocks: uint64(st.Blocks), Blksize: uint32(st.Blksize),
		Atime: uint64(st.Atim.Sec), Atimensec: uint32(st.Atim.Nsec),
		Mtime: uint64(st.Mtim.Sec), Mtimensec: uint32(st.Mtim.Nsec),
		Ctime: uint64(st.Ctim.Sec), Ctimensec: uint32(st.Ctim.Nsec),
		Mode: st.Mode&unix.S_IFMT | shown.Mode, Nlink: uint32(st.Nlink),
		Owner: fuse.Owner{Uid: shown.UID, Gid: shown.GID},
	}
}

// inode returns the inode number that the guest sees. Even within one mount an inode
// may have another device: a subvolume, or a layer of an overlay.
func (d *Dir) inode(st *unix.Stat_t) uint64 {
	if st.Dev == d.dev {
		return st.Ino
	}
	return st.Ino ^ st.Dev*0x9e3779b97f4a7c15
}

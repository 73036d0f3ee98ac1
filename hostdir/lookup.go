package hostdir

import (
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// maxName is NAME_MAX of Linux.
const maxName = 255

// checkName says whether a guest's name is one component of a path.
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

// beneath is how the kernel is to look names up: below the directory, through no
// link of whatever kind, and not into what is mounted there.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV

// handleAt returns an O_PATH descriptor of what a name is, a link included, or
// what a path of several is in a state.
func (d *Dir) handleAt(dir int, name string) (int, error) {
	if d.noOpenat2 {
		return d.stepAt(dir, name)
	}
	return openBeneath(dir, name)
}

// openBeneath is openat2(2), of Linux 5.6.
func openBeneath(dir int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath}
	for tries := 1; ; tries++ {
		fd, err := unix.Openat2(dir, name, &how) // again, below
		// EAGAIN: something was renamed meanwhile, and the kernel is not sure.
		if err != unix.EINTR && err != unix.EAGAIN || tries == 100 {
			return fd, err
		}
	}
}

// Openat2 says whether this process may call openat2(2): services that are
// hardened, containers with an old filter and old kernels answer ENOSYS or EPERM.
func Openat2() bool {
	fd, err := openBeneath(unix.AT_FDCWD, ".")
	closeFD(fd)
	return err != unix.ENOSYS && err != unix.EPERM
}

// stepAt does without openat2: one component after the other, each below a
// directory that is open, so that there is no path in which a link or ".." could
// lead elsewhere. That it is not mounted there the kernel does not say until it is
// open, and O_PATH does nothing to it.
func (d *Dir) stepAt(dir int, name string) (int, error) {
	at := -1 // what was opened here
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

// reopen opens the inode of an O_PATH descriptor, which must be a regular file
// or a directory. No name is looked at.
func (d *Dir) reopen(fd, flags int) (int, error) {
	return openat(d.proc, strconv.Itoa(fd), flags|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
}

// procPath is the same as a path, for calls that take nothing else.
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

// lookup tells the guest of what has a name. An inode that it knows already costs
// one system call.
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

// tell tells the guest of an inode, of which it takes an O_PATH descriptor.
func (d *Dir) tell(fd int, out *fuse.EntryOut) fuse.Status {
	n, st, s := d.addPath(fd)
	if s.Ok() {
		d.entry(n, st, out)
		d.done(n)
	}
	return s
}

// addPath is add of an O_PATH descriptor of whatever.
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

// attr is what the guest is told of an inode, whose node the caller uses. Device
// numbers are not: a device of the host would be some other of the guest's.
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

// inode is the number that the guest sees. Without a mount in between an inode
// can still be of another device: a subvolume, or a layer of an overlay.
func (d *Dir) inode(st *unix.Stat_t) uint64 {
	if st.Dev == d.dev {
		return st.Ino
	}
	return st.Ino ^ st.Dev*0x9e3779b97f4a7c15
}

package hostdir

import (
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// GetAttr implements fuse.RawFileSystem.
func (d *Dir) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, s := d.use(in.NodeId)
	if !s.Ok() {
		return s
	}
	defer d.done(n)
	return d.stat(n, out)
}

func (d *Dir) stat(n *node, out *fuse.AttrOut) fuse.Status {
	var st unix.Stat_t
	if err := fstat(n.fd, &st); err != nil {
		return status(err)
	}
	*out = fuse.AttrOut{}
	out.SetTimeout(timeout)
	d.attr(n, &st, &out.Attr)
	return fuse.OK
}

// SetAttr implements fuse.RawFileSystem.
func (d *Dir) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if s := d.writable(); !s.Ok() {
		return s
	}
	n, s := d.use(in.NodeId)
	if !s.Ok() {
		return s
	}
	defer d.done(n)
	for _, set := range []func(*node, *fuse.SetAttrIn) fuse.Status{d.setPermissions, d.setSize, d.setTimes} {
		if s := set(n, in); !s.Ok() {
			return s
		}
	}
	return d.stat(n, out)
}

// setPermissions sets owner and mode.
func (d *Dir) setPermissions(n *node, in *fuse.SetAttrIn) fuse.Status {
	chown := in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID) != 0
	chmod := in.Valid&fuse.FATTR_MODE != 0
	kill := in.Valid&fuse.FATTR_KILL_SUIDGID != 0 && in.Valid&fuse.FATTR_SIZE != 0
	switch {
	case !chown && !chmod && !kill:
		return fuse.OK
	case chmod && n.kind == unix.S_IFLNK:
		return fuse.Status(unix.EOPNOTSUPP)
	}
	var st unix.Stat_t
	if err := fstat(n.fd, &st); err != nil {
		return status(err)
	}
	now := d.shown(n, &st)
	want := now
	if (chown || kill) && n.kind != unix.S_IFDIR {
		want.Mode = without(want.Mode)
	}
	if chmod {
		want.Mode = in.Mode & permissions
	}
	if in.Valid&fuse.FATTR_UID != 0 {
		want.UID = in.Uid
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		want.GID = in.Gid
	}
	switch {
	case want.UID == invalidID || want.GID == invalidID:
		return fuse.EINVAL
	case d.hostOwner || st.Uid != d.owner.uid:
		return d.setHost(n, now, want, chmod)
	case want == now:
		return fuse.OK
	}
	return status(d.settle(n, want, false))
}

// setHost sets the host's mode. It cannot change the owner: it fails unless the owner
// stays the same.
func (d *Dir) setHost(n *node, now, want override, chmod bool) fuse.Status {
	if want.UID != now.UID || want.GID != now.GID {
		return fuse.EPERM
	}
	if !chmod {
		return fuse.OK
	}
	return status(d.chmod(n.fd, mode(n.kind, want.Mode)))
}

// mode returns the bits of a mode that the guest may set on the host.
func mode(kind, bits uint32) uint32 {
	if kind == unix.S_IFDIR {
		return bits & (0o1777 | unix.S_ISGID) // set-group-ID here only passes on the directory's group
	}
	return bits & 0o1777
}

func (d *Dir) setSize(n *node, in *fuse.SetAttrIn) fuse.Status {
	switch {
	case in.Valid&fuse.FATTR_SIZE == 0:
		return fuse.OK
	case n.kind == unix.S_IFDIR:
		return fuse.EISDIR
	case n.kind != unix.S_IFREG || int64(in.Size) < 0:
		return fuse.EINVAL
	}
	if in.Valid&fuse.FATTR_FH != 0 {
		h, s := d.useHandle(in.Fh, false)
		if !s.Ok() {
			return s
		}
		defer d.doneHandle(h)
		return status(d.truncate(h.fd, int64(in.Size)))
	}
	fd, s := d.openFile(n, unix.O_WRONLY)
	if !s.Ok() {
		return s
	}
	defer unix.Close(fd)
	return status(d.truncate(fd, int64(in.Size)))
}

func (d *Dir) truncate(fd int, size int64) error {
	return d.spend(fd, 0, func() error {
		return again(func() error { return unix.Ftruncate(fd, size) })
	})
}

func (d *Dir) setTimes(n *node, in *fuse.SetAttrIn) fuse.Status {
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) == 0 {
		return fuse.OK
	}
	times := []unix.Timespec{
		timespec(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		timespec(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
	// The /proc entry leads to the inode itself, and to no further link.
	return status(again(func() error { return unix.UtimesNanoAt(d.proc, strconv.Itoa(n.fd), times, 0) }))
}

func timespec(valid, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case nsec > 999_999_999: // else it could be UTIME_OMIT or UTIME_NOW
		return unix.Timespec{Sec: int64(sec), Nsec: 999_999_999}
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}

// Access implements fuse.RawFileSystem. The guest's kernel checks modes itself, and the
// host's does at each operation.
func (*Dir) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// Statx implements fuse.RawFileSystem: the guest then uses GetAttr.
func (*Dir) Statx(<-chan struct{}, *fuse.StatxIn, *fuse.StatxOut) fuse.Status { return fuse.ENOSYS }

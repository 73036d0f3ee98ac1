package hostdir

import (
	"strconv"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openFlags are the flags that a guest may choose: access mode, truncation, and
// synchronous writes. O_APPEND is left to the guest's kernel: with it, the host would
// ignore write offsets. O_DIRECT concerns the guest's cache only.
const openFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_SYNC | unix.O_DSYNC

// flagsOf checks the flags of an open by the guest.
func (d *Dir) flagsOf(raw uint32) (int, fuse.Status) {
	flags := int(raw) & openFlags
	switch {
	case flags&unix.O_ACCMODE == unix.O_ACCMODE:
		return 0, fuse.EINVAL
	case d.readOnly && (flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0):
		return 0, fuse.EROFS
	}
	return flags, fuse.OK
}

// openFile opens a node's file. Only regular files are opened: opening a pipe could
// block forever, and opening a device could do anything.
func (d *Dir) openFile(n *node, flags int) (int, fuse.Status) {
	switch n.kind {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return -1, fuse.EISDIR
	case unix.S_IFLNK:
		return -1, fuse.Status(unix.ELOOP)
	default:
		return -1, fuse.EPERM
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0 {
		// Code written into a set-user-ID or set-group-ID program would get its rights.
		// The kernel clears these bits at a write, but not for root.
		var st unix.Stat_t
		if err := fstat(n.fd, &st); err != nil {
			return -1, status(err)
		}
		if st.Mode&special != 0 {
			return -1, fuse.EPERM
		}
	}
	if flags&unix.O_TRUNC == 0 {
		fd, err := d.reopen(n.fd, flags)
		return fd, status(err)
	}
	fd := -1
	err := d.spend(n.fd, 0, func() (err error) {
		fd, err = d.reopen(n.fd, flags)
		return err
	})
	return fd, status(err)
}

// Open implements fuse.RawFileSystem.
func (d *Dir) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	flags, s := d.flagsOf(in.Flags)
	if !s.Ok() {
		return s
	}
	n, s := d.use(in.NodeId)
	if !s.Ok() {
		return s
	}
	defer d.done(n)
	fd, s := d.openFile(n, flags)
	if !s.Ok() {
		return s
	}
	if flags&unix.O_TRUNC != 0 && in.Mode&fuse.OPEN_KILL_SUIDGID != 0 {
		if err := d.dropSpecial(n); err != nil {
			unix.Close(fd)
			return status(err)
		}
	}
	return d.opened(n, fd, flags, out)
}

// opened makes a handle for an open file.
func (d *Dir) opened(n *node, fd, flags int, out *fuse.OpenOut) fuse.Status {
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		unix.Close(fd)
		return status(err)
	}
	h, s := d.addHandle(fd, flags&^unix.O_TRUNC, nil)
	if !s.Ok() {
		return s
	}
	*out = fuse.OpenOut{Fh: h}
	if d.unchanged(n, &st) {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH // closing it has nothing to report
	}
	return fuse.OK
}

// A stamp changes whenever the content of a file changes.
type stamp struct {
	mtime, ctime unix.Timespec
	size         int64
}

// granularity is how far apart two changes must be for their times to differ, with a
// wide margin.
const granularity = 2 * time.Second

// unchanged reports whether a file is unchanged since the guest last opened it: then
// the guest's cache of it is valid. A file changed just now could change again with the
// same times, so it counts as changed.
func (d *Dir) unchanged(n *node, st *unix.Stat_t) bool {
	now := stamp{st.Mtim, st.Ctim, st.Size}
	settled := time.Since(time.Unix(st.Ctim.Unix())) > granularity
	d.mu.Lock()
	defer d.mu.Unlock()
	same := settled && n.seen == now
	n.seen = stamp{}
	if settled {
		n.seen = now
	}
	return same
}

// create makes a regular file, or opens an existing one if flags do not have O_EXCL.
// made tells which.
func (d *Dir) create(b *birth, flags int) (fd int, made bool, _ fuse.Status) {
	err := d.making(b, func() (err error) {
		fd, err = d.openNew(b.parent.fd, b.name, flags|unix.O_EXCL, d.birthMode(b))
		return err
	})
	switch {
	case err == nil:
		return fd, true, fuse.OK
	case err != unix.EEXIST || flags&unix.O_EXCL != 0:
		return -1, false, status(err)
	}
	// It has appeared since the guest looked it up. Check what it is before opening it.
	path, err := d.handleAt(b.parent.fd, b.name)
	if err != nil {
		return -1, false, status(err)
	}
	defer unix.Close(path)
	var st unix.Stat_t
	if err := fstat(path, &st); err != nil {
		return -1, false, status(err)
	}
	fd, s := d.openFile(&node{fd: path, kind: st.Mode & unix.S_IFMT}, flags)
	return fd, false, s
}

// openNew opens a name that may not exist yet.
func (d *Dir) openNew(dir int, name string, flags int, mode uint32) (int, error) {
	return openat(dir, name, flags|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_NONBLOCK, mode)
}

// Create implements fuse.RawFileSystem.
func (d *Dir) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	parent, s := d.change(in.NodeId, name)
	if !s.Ok() {
		return s
	}
	defer d.done(parent)
	flags, s := d.flagsOf(in.Flags)
	if !s.Ok() {
		return s
	}
	b := birth{parent, name, in.Owner, unix.S_IFREG, in.Mode & permissions}
	fd, made, s := d.create(&b, flags|int(in.Flags)&unix.O_EXCL)
	if !s.Ok() {
		return s
	}
	if made {
		return d.created(&b, fd, flags, out)
	}
	if flags&unix.O_TRUNC != 0 && in.OpenFlags&fuse.OPEN_KILL_SUIDGID != 0 {
		if err := d.dropSpecialOf(fd); err != nil {
			unix.Close(fd)
			return status(err)
		}
	}
	return d.created(nil, fd, flags, out)
}

// Tmpfile implements fuse.RawFileSystem: a file without a name until it is linked.
func (d *Dir) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if s := d.writable(); !s.Ok() {
		return s
	}
	parent, s := d.useDir(in.NodeId)
	if !s.Ok() {
		return s
	}
	defer d.done(parent)
	flags, s := d.flagsOf(in.Flags)
	if !s.Ok() {
		return s
	}
	b := birth{parent, "", in.Owner, unix.S_IFREG, in.Mode & permissions}
	fd := -1
	err := d.making(&b, func() (err error) {
		fd, err = openat(d.proc, strconv.Itoa(parent.fd), flags|int(in.Flags)&unix.O_EXCL|unix.O_TMPFILE, d.birthMode(&b))
		return err
	})
	if err != nil {
		return status(err)
	}
	var st unix.Stat_t
	if fstat(fd, &st) == nil {
		d.charged(&st)
	}
	return d.created(&b, fd, flags, out)
}

// created tells the guest of a file that it has opened, and made if b is not nil. It
// takes over the descriptor.
func (d *Dir) created(b *birth, fd, flags int, out *fuse.CreateOut) fuse.Status {
	path, err := d.pathTo(fd)
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	s := fuse.OK
	if b != nil {
		s = d.born(b, path, &out.EntryOut)
	} else {
		s = d.tell(path, &out.EntryOut)
	}
	if !s.Ok() {
		unix.Close(fd)
		return s
	}
	n, s := d.use(out.NodeId)
	if !s.Ok() { // the guest has just forgotten it
		unix.Close(fd)
		return s
	}
	defer d.done(n)
	if s := d.opened(n, fd, flags, &out.OpenOut); !s.Ok() {
		d.Forget(out.NodeId, 1)
		return s
	}
	return fuse.OK
}

// pathTo returns an O_PATH descriptor for the inode of fd.
func (d *Dir) pathTo(fd int) (int, error) {
	return openat(d.proc, strconv.Itoa(fd), unix.O_PATH, 0)
}

// Release implements fuse.RawFileSystem.
func (d *Dir) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { d.release(in.Fh, false) }

// Flush implements fuse.RawFileSystem: the guest's close reports what a close on the
// host does, such as an exceeded NFS quota. It closes a duplicate, because the guest
// may have other descriptors. On a local file system a close has nothing to report, and
// ENOSYS tells the guest not to ask: so it need not wait for a request when it closes a
// file.
func (d *Dir) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	if d.local {
		return fuse.ENOSYS
	}
	h, s := d.useHandle(in.Fh, false)
	if !s.Ok() {
		return s
	}
	defer d.doneHandle(h)
	if h.flags&unix.O_ACCMODE == unix.O_RDONLY {
		return fuse.OK
	}
	fd, err := got(func() (int, error) { return unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		return status(err)
	}
	if err := unix.Close(fd); err != nil && err != unix.EINTR { // on EINTR it is closed
		return status(err)
	}
	return fuse.OK
}

// Fsync implements fuse.RawFileSystem.
func (d *Dir) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status { return d.fsync(in, false) }

// FsyncDir implements fuse.RawFileSystem.
func (d *Dir) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status { return d.fsync(in, true) }

const dataOnly = 1 // FUSE_FSYNC_FDATASYNC

func (d *Dir) fsync(in *fuse.FsyncIn, dir bool) fuse.Status {
	h, s := d.useHandle(in.Fh, dir)
	if !s.Ok() {
		return s
	}
	defer d.doneHandle(h)
	if in.FsyncFlags&dataOnly != 0 {
		return status(again(func() error { return unix.Fdatasync(h.fd) }))
	}
	return status(again(func() error { return unix.Fsync(h.fd) }))
}

// Lseek implements fuse.RawFileSystem. The guest asks for holes and data only. The
// descriptor's position does not matter: all other calls name an offset.
func (d *Dir) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE || int64(in.Offset) < 0 {
		return fuse.EINVAL
	}
	h, s := d.useHandle(in.Fh, false)
	if !s.Ok() {
		return s
	}
	defer d.doneHandle(h)
	err := again(func() error {
		at, err := unix.Seek(h.fd, int64(in.Offset), int(in.Whence))
		out.Offset = uint64(at)
		return err
	})
	return status(err)
}

// Fallocate implements fuse.RawFileSystem.
func (d *Dir) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, s := d.useHandle(in.Fh, false)
	if !s.Ok() {
		return s
	}
	defer d.doneHandle(h)
	if err := d.dropSpecialOf(h.fd); err != nil { // the request does not say whether the caller has privilege
		return status(err)
	}
	return status(d.allocate(h.fd, in.Mode, int64(in.Offset), int64(in.Length)))
}

// CopyFileRange implements fuse.RawFileSystem.
func (d *Dir) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, s := d.useHandle(in.FhIn, false)
	if !s.Ok() {
		return 0, s
	}
	defer d.doneHandle(from)
	to, s := d.useHandle(in.FhOut, false)
	if !s.Ok() {
		return 0, s
	}
	defer d.doneHandle(to)
	off, at := int64(in.OffIn), int64(in.OffOut)
	if off < 0 || at < 0 || in.Flags != 0 {
		return 0, fuse.EINVAL
	}
	if err := d.dropSpecialOf(to.fd); err != nil {
		return 0, status(err)
	}
	n, err := d.copyRange(from.fd, to.fd, off, at, in.Len)
	if err != nil {
		return 0, status(err)
	}
	return uint32(n), fuse.OK
}

// On ENOSYS the guest's kernel handles locks itself; they hold between the guest's
// processes.

// GetLk implements fuse.RawFileSystem.
func (*Dir) GetLk(<-chan struct{}, *fuse.LkIn, *fuse.LkOut) fuse.Status { return fuse.ENOSYS }

// SetLk implements fuse.RawFileSystem.
func (*Dir) SetLk(<-chan struct{}, *fuse.LkIn) fuse.Status { return fuse.ENOSYS }

// SetLkw implements fuse.RawFileSystem.
func (*Dir) SetLkw(<-chan struct{}, *fuse.LkIn) fuse.Status { return fuse.ENOSYS }

// Ioctl implements fuse.RawFileSystem: a guest may make none on a host file.
func (*Dir) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}

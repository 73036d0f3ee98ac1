package hostdir

import (
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// change begins a change to a directory. It returns the directory's node; done must
// follow.
func (d *Dir) change(dir uint64, name string) (*node, fuse.Status) {
	if s := d.writable(); !s.Ok() {
		return nil, s
	}
	if s := checkName(name); !s.Ok() {
		return nil, s
	}
	return d.useDir(dir)
}

// Mknod implements fuse.RawFileSystem. It makes no devices: the guest must not create
// host devices.
func (d *Dir) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, s := d.change(in.NodeId, name)
	if !s.Ok() {
		return s
	}
	defer d.done(parent)
	b := birth{parent, name, in.Owner, in.Mode & unix.S_IFMT, in.Mode & permissions}
	switch b.kind {
	case 0, unix.S_IFREG:
		b.kind = unix.S_IFREG
		fd, _, s := d.create(&b, unix.O_WRONLY|unix.O_EXCL)
		if !s.Ok() {
			return s
		}
		defer unix.Close(fd)
		path, err := d.pathTo(fd)
		if err != nil {
			return status(err)
		}
		return d.born(&b, path, out)
	case unix.S_IFIFO, unix.S_IFSOCK:
		return d.named(&b, func() error { return unix.Mknodat(parent.fd, name, b.kind|d.birthMode(&b), 0) }, out) // again
	}
	return fuse.EPERM
}

// named makes an inode with a call that returns no descriptor.
func (d *Dir) named(b *birth, make func() error, out *fuse.EntryOut) fuse.Status {
	if err := d.making(b, func() error { return again(make) }); err != nil {
		return status(err)
	}
	fd, err := d.handleAt(b.parent.fd, b.name)
	if err != nil {
		return status(err)
	}
	return d.born(b, fd, out)
}

// Mkdir implements fuse.RawFileSystem.
func (d *Dir) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, s := d.change(in.NodeId, name)
	if !s.Ok() {
		return s
	}
	defer d.done(parent)
	b := birth{parent, name, in.Owner, unix.S_IFDIR, in.Mode & permissions}
	return d.named(&b, func() error { return unix.Mkdirat(parent.fd, name, d.birthMode(&b)) }, out) // again
}

// Symlink implements fuse.RawFileSystem. The text is up to the guest: the host never
// follows it.
func (d *Dir) Symlink(_ <-chan struct{}, in *fuse.InHeader, text, name string, out *fuse.EntryOut) fuse.Status {
	parent, s := d.change(in.NodeId, name)
	if !s.Ok() {
		return s
	}
	defer d.done(parent)
	b := birth{parent, name, in.Owner, unix.S_IFLNK, 0o777}
	return d.named(&b, func() error { return unix.Symlinkat(text, parent.fd, name) }, out) // again
}

// Readlink implements fuse.RawFileSystem.
func (d *Dir) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	n, s := d.use(in.NodeId)
	if !s.Ok() {
		return nil, s
	}
	defer d.done(n)
	if n.kind != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	text := make([]byte, unix.PathMax)
	size, err := got(func() (int, error) { return unix.Readlinkat(n.fd, "", text) })
	if err != nil {
		return nil, status(err)
	}
	return text[:size], fuse.OK
}

// Link implements fuse.RawFileSystem.
func (d *Dir) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, s := d.change(in.NodeId, name)
	if !s.Ok() {
		return s
	}
	defer d.done(parent)
	n, s := d.use(in.Oldnodeid)
	if !s.Ok() {
		return s
	}
	defer d.done(n)
	if n.kind == unix.S_IFDIR {
		return fuse.EPERM
	}
	// The link followed is the /proc entry, which leads to the inode.
	err := d.spend(parent.fd, blockSlack, func() error {
		return again(func() error {
			return unix.Linkat(d.proc, strconv.Itoa(n.fd), parent.fd, name, unix.AT_SYMLINK_FOLLOW)
		})
	})
	if err != nil {
		return status(err)
	}
	return d.lookup(parent.fd, name, out)
}

// Unlink implements fuse.RawFileSystem.
func (d *Dir) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return d.remove(in.NodeId, name, 0)
}

// Rmdir implements fuse.RawFileSystem.
func (d *Dir) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return d.remove(in.NodeId, name, unix.AT_REMOVEDIR)
}

func (d *Dir) remove(dir uint64, name string, flags int) fuse.Status {
	parent, s := d.change(dir, name)
	if !s.Ok() {
		return s
	}
	defer d.done(parent)
	return status(d.replacing(parent, name, 0, func() error {
		return again(func() error { return unix.Unlinkat(parent.fd, name, flags) })
	}))
}

// Rename implements fuse.RawFileSystem.
func (d *Dir) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	parent, s := d.change(in.NodeId, from)
	if !s.Ok() {
		return s
	}
	defer d.done(parent)
	into, s := d.change(in.Newdir, to)
	if !s.Ok() {
		return s
	}
	defer d.done(into)
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 { // RENAME_WHITEOUT makes a device
		return fuse.EINVAL
	}
	slack := int64(0) // for the new name; in the same directory it replaces the old one, of about the same length
	if into != parent {
		slack = blockSlack
	}
	return status(d.replacing(into, to, slack, func() error {
		return again(func() error { return unix.Renameat2(parent.fd, from, into.fd, to, uint(in.Flags)) })
	}))
}

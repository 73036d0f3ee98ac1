package hostdir

import (
	"bytes"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// userXattr is the prefix of the only extended attributes that a guest sees: the others
// mean something to the host's kernel.
const userXattr = "user."

const maxXattr = 64 << 10 // XATTR_SIZE_MAX and XATTR_LIST_MAX

// useXattr returns a node that can have the attribute. done must follow.
func (d *Dir) useXattr(id uint64, name string) (*node, fuse.Status) {
	switch {
	case !strings.HasPrefix(name, userXattr):
		return nil, fuse.Status(unix.EOPNOTSUPP)
	case len(name) > maxName || strings.IndexByte(name, 0) >= 0:
		return nil, fuse.EINVAL
	}
	n, s := d.use(id)
	if s.Ok() && n.kind != unix.S_IFREG && n.kind != unix.S_IFDIR {
		d.done(n)
		return nil, fuse.EPERM
	}
	return n, s
}

// GetXAttr implements fuse.RawFileSystem.
func (d *Dir) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if name == overrideXattr {
		return 0, fuse.ENODATA // the guest sees it as owner and mode
	}
	n, s := d.useXattr(in.NodeId, name)
	if !s.Ok() {
		return 0, s
	}
	defer d.done(n)
	size, err := got(func() (int, error) { return unix.Getxattr(procPath(n.fd), name, dest) })
	if err != nil {
		return 0, status(err)
	}
	if size > len(dest) {
		return uint32(size), fuse.ERANGE
	}
	return uint32(size), fuse.OK
}

// ListXAttr implements fuse.RawFileSystem.
func (d *Dir) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, s := d.use(in.NodeId)
	if !s.Ok() {
		return 0, s
	}
	defer d.done(n)
	if n.kind != unix.S_IFREG && n.kind != unix.S_IFDIR {
		return 0, fuse.OK
	}
	all := make([]byte, maxXattr)
	size, err := got(func() (int, error) { return unix.Listxattr(procPath(n.fd), all) })
	if err == unix.EOPNOTSUPP {
		return 0, fuse.OK
	}
	if err != nil {
		return 0, status(err)
	}
	var list []byte
	for name := range bytes.SplitAfterSeq(all[:size], []byte{0}) {
		if bytes.HasPrefix(name, []byte(userXattr)) && string(name) != overrideXattr+"\x00" {
			list = append(list, name...)
		}
	}
	if len(list) > len(dest) {
		return uint32(len(list)), fuse.ERANGE
	}
	copy(dest, list)
	return uint32(len(list)), fuse.OK
}

// SetXAttr implements fuse.RawFileSystem.
func (d *Dir) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if s := d.writable(); !s.Ok() {
		return s
	}
	if name == overrideXattr {
		return fuse.EPERM
	}
	n, s := d.useXattr(in.NodeId, name)
	if !s.Ok() {
		return s
	}
	defer d.done(n)
	if in.Flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
		return fuse.EINVAL
	}
	data = data[:min(len(data), int(in.Size))]
	return status(d.spendXattr(n.fd, name, len(data), func() error {
		return again(func() error { return unix.Setxattr(procPath(n.fd), name, data, int(in.Flags)) })
	}))
}

// RemoveXAttr implements fuse.RawFileSystem.
func (d *Dir) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if s := d.writable(); !s.Ok() {
		return s
	}
	if name == overrideXattr {
		return fuse.ENODATA
	}
	n, s := d.useXattr(in.NodeId, name)
	if !s.Ok() {
		return s
	}
	defer d.done(n)
	return status(d.spendXattr(n.fd, name, -1, func() error {
		return again(func() error { return unix.Removexattr(procPath(n.fd), name) })
	}))
}

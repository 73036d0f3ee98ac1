package hostdir

import (
	"encoding/binary"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A stream is a guest's position in a directory that it reads. Positions are the host's
// own, which stay valid while entries come and go.
type stream struct {
	mu   sync.Mutex // held while the host reads the directory
	next uint64     // position of the first entry of rest
	rest []byte     // part of buf: entries read from the host and not yet passed on
	buf  []byte
}

// direntBytes is how much of a directory is read at once. maxDirs is how many may be
// open: each stream keeps what it has read ahead.
const (
	direntBytes = 16 << 10
	maxDirs     = 2048
)

// OpenDir implements fuse.RawFileSystem.
func (d *Dir) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, s := d.useDir(in.NodeId)
	if !s.Ok() {
		return s
	}
	defer d.done(n)
	fd, err := d.reopen(n.fd, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return status(err)
	}
	*out = fuse.OpenOut{}
	out.Fh, s = d.addHandle(fd, unix.O_RDONLY|unix.O_DIRECTORY, new(stream))
	return s
}

// ReleaseDir implements fuse.RawFileSystem.
func (d *Dir) ReleaseDir(in *fuse.ReleaseIn) { d.release(in.Fh, true) }

// ReadDir implements fuse.RawFileSystem.
func (d *Dir) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return d.readDir(in, func(_ int, e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus implements fuse.RawFileSystem: each entry comes with the result of
// Lookup. Where that fails, such as at a mount, the guest gets only the name, and the
// error when it asks. The same holds when descriptors get scarce, because the guest may
// need none of these entries.
func (d *Dir) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return d.readDir(in, func(dir int, e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if e.Name == "." || e.Name == ".." || d.scarce() {
			return true
		}
		if s := d.lookup(dir, e.Name, entry); !s.Ok() {
			*entry = fuse.EntryOut{}
		}
		return true
	})
}

// readDir calls add for the entries from in.Offset on, with the directory's descriptor,
// until there are no more or add returns false.
func (d *Dir) readDir(in *fuse.ReadIn, add func(dir int, e fuse.DirEntry) bool) fuse.Status {
	h, s := d.useHandle(in.Fh, true)
	if !s.Ok() {
		return s
	}
	defer d.doneHandle(h)
	r := h.dir
	r.mu.Lock()
	defer r.mu.Unlock()
	if in.Offset != r.next {
		if err := again(func() error {
			_, err := unix.Seek(h.fd, int64(in.Offset), unix.SEEK_SET)
			return err
		}); err != nil {
			return status(err)
		}
		r.next, r.rest = in.Offset, nil
	}
	for first := true; ; first = false {
		e, size, err := r.peek(h.fd)
		switch {
		case err != nil && first:
			return status(err)
		case err != nil || size == 0:
			return fuse.OK
		}
		if e.Name == ".." && in.NodeId == fuse.FUSE_ROOT_ID {
			e.Ino = 0 // the guest must not learn what is above
		}
		if !add(h.fd, e) {
			if first {
				return fuse.EINVAL // not even one fits: as getdents does
			}
			return fuse.OK
		}
		r.rest, r.next = r.rest[size:], e.Off
	}
}

// peek returns the next entry and its size in rest, 0 at the end.
func (r *stream) peek(fd int) (fuse.DirEntry, int, error) {
	if len(r.rest) == 0 {
		if r.buf == nil {
			r.buf = make([]byte, direntBytes)
		}
		n, err := got(func() (int, error) { return unix.Getdents(fd, r.buf) })
		if err != nil || n == 0 {
			return fuse.DirEntry{}, 0, err
		}
		r.rest = r.buf[:n]
	}
	return parseDirent(r.rest)
}

// parseDirent parses a struct linux_dirent64 from the host's kernel.
func parseDirent(b []byte) (fuse.DirEntry, int, error) {
	const header = 19
	if len(b) < header {
		return fuse.DirEntry{}, 0, unix.EIO
	}
	size := int(binary.LittleEndian.Uint16(b[16:]))
	if size < header || size > len(b) {
		return fuse.DirEntry{}, 0, unix.EIO
	}
	name := unix.ByteSliceToString(b[header:size])
	return fuse.DirEntry{
		Ino:  binary.LittleEndian.Uint64(b[0:]),
		Off:  binary.LittleEndian.Uint64(b[8:]),
		Mode: uint32(b[18]) << 12, // DT_DIR and so on
		Name: name,
	}, size, nil
}

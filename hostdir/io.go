package hostdir

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// ReadInto reads from an open file into bufs until they are full or the file ends, and
// returns the number of bytes.
func (d *Dir) ReadInto(id uint64, bufs [][]byte, off uint64) (int, fuse.Status) {
	h, s := d.useHandle(id, false)
	if !s.Ok() {
		return 0, s
	}
	defer d.doneHandle(h)
	n, err := d.paced(func() (int, error) { return move(unix.SYS_PREADV, h.fd, bufs, off) })
	return n, status(err)
}

// tryBytes is the most to read at once where the host does not tell whether it has the
// data in its cache.
const tryBytes = 128 << 10

// TryRead is ReadInto if the host has all of it in its cache. Else done is false, and
// the content of the buffers is undefined.
func (d *Dir) TryRead(id uint64, bufs [][]byte, off uint64) (n int, s fuse.Status, done bool) {
	if !d.local || d.bucket != nil || len(bufs) > maxVector {
		return 0, fuse.OK, false
	}
	h, s := d.useHandle(id, false)
	if !s.Ok() {
		return 0, s, true
	}
	defer d.doneHandle(h)
	var v vector
	k, want := v.fill(bufs)
	if want == 0 || off > math.MaxInt64-uint64(want) {
		return 0, fuse.OK, false // ReadInto finds the error
	}
	if !d.memory {
		n, err := v.call(unix.SYS_PREADV2, h.fd, k, int64(off), unix.RWF_NOWAIT)
		if err == nil && n < want && !d.ends(h.fd, off+uint64(n)) {
			return 0, fuse.OK, false
		}
		if err != unix.EOPNOTSUPP {
			return n, fuse.OK, err == nil
		}
	}
	if !d.memory && want > tryBytes {
		return 0, fuse.OK, false
	}
	n, err := move(unix.SYS_PREADV, h.fd, bufs, off)
	return n, status(err), true
}

// ends reports whether a file is known to end at or before a position: a read that
// stopped there did not stop because of the cache.
func (d *Dir) ends(fd int, off uint64) bool {
	var b [1]byte
	one := [1][]byte{b[:]}
	var v vector
	k, _ := v.fill(one[:])
	n, err := v.call(unix.SYS_PREADV2, fd, k, int64(off), unix.RWF_NOWAIT)
	return n == 0 && err == nil
}

// WriteFrom writes bufs to an open file, and returns how much was written. kill says
// that the writer has no privilege: a program loses its special bits.
func (d *Dir) WriteFrom(id uint64, bufs [][]byte, off uint64, kill bool) (int, fuse.Status) {
	h, s := d.useHandle(id, false)
	if !s.Ok() {
		return 0, s
	}
	defer d.doneHandle(h)
	if kill {
		if err := d.dropSpecialOf(h.fd); err != nil {
			return 0, status(err)
		}
	}
	if !d.Metered() {
		n, err := move(unix.SYS_PWRITEV, h.fd, bufs, off)
		return n, status(err)
	}
	return d.writeMetered(h.fd, bufs, off)
}

// writeMetered writes when the rate allows, and within the quota.
func (d *Dir) writeMetered(fd int, bufs [][]byte, off uint64) (int, fuse.Status) {
	total := 0
	for _, b := range bufs {
		total += len(b)
	}
	if off > math.MaxInt64-uint64(total) {
		return 0, fuse.EINVAL
	}
	n, err := d.paced(func() (n int, err error) {
		err = d.spendRange(fd, int64(off), int64(total), func() (err error) {
			n, err = move(unix.SYS_PWRITEV, fd, bufs, off)
			return err
		})
		return n, err
	})
	return n, status(err)
}

// move makes as many calls as needed: the kernel may stop early. Bytes moved before an
// error count.
func move(trap uintptr, fd int, bufs [][]byte, off uint64) (int, error) {
	var v vector
	done := 0
	for len(bufs) > 0 {
		k, want := v.fill(bufs)
		if off > math.MaxInt64-uint64(want) {
			return done, unix.EINVAL
		}
		n, err := v.call(trap, fd, k, int64(off), 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil && done == 0 {
			return 0, err
		}
		if err == nil {
			done, off = done+n, off+uint64(n)
		}
		if err != nil || n < want { // the file's end, a full disk: the next call would say so
			break
		}
		bufs = bufs[k:]
	}
	return done, nil
}

// Read implements fuse.RawFileSystem.
func (d *Dir) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	one := [1][]byte{buf[:min(uint64(len(buf)), uint64(in.Size))]}
	n, s := d.ReadInto(in.Fh, one[:], in.Offset)
	return fuse.ReadResultData(buf[:n]), s
}

// Write implements fuse.RawFileSystem.
func (d *Dir) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	one := [1][]byte{data}
	n, s := d.WriteFrom(in.Fh, one[:], in.Offset, in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0)
	return uint32(n), s
}

// Writev implements fuse.RawFileSystem.
func (d *Dir) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	n, s := d.WriteFrom(in.Fh, data, in.Offset, in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0)
	return uint32(n), s
}

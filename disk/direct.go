package disk

import (
	"errors"
	"io"
	"math/bits"
	"sync"

	"golang.org/x/sys/unix"
)

// bounceSize is the size of a bounce buffer.
const bounceSize = 1 << 20

// direct is I/O that bypasses the page cache, for which the kernel requires alignment.
// A guest need not know: unaligned transfers go through a bounce buffer.
type direct struct {
	offAlign int64   // of offsets and lengths, in bytes
	memAlign uintptr // of buffers
	pool     sync.Pool

	// partial is held for reading by all changes of the disk, and for writing by a
	// change that reads a block and writes it back with a part replaced.
	partial sync.RWMutex
}

// setUpDirect learns which alignment the open file needs.
func (m *Image) setUpDirect() error {
	d := &direct{offAlign: int64(m.logical), memAlign: uintptr(m.logical)}
	if !m.device {
		d.offAlign, d.memAlign = 4096, 4096 // the most any file system needs, if it does not say
	}
	var s unix.Statx_t
	err := again(func() error { return unix.Statx(m.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &s) })
	if err == nil && s.Mask&unix.STATX_DIOALIGN != 0 {
		d.offAlign, d.memAlign = int64(s.Dio_offset_align), uintptr(s.Dio_mem_align)
	}
	switch {
	case d.offAlign == 0 || d.memAlign == 0:
		return errors.New("its file system has no direct I/O on this file: use the disk without")
	case !powerOfTwo(uint64(d.offAlign)) || !powerOfTwo(uint64(d.memAlign)) || d.offAlign > bounceSize || d.memAlign > bounceSize:
		return errors.New("direct I/O needs an alignment that is not supported: use the disk without")
	case m.size%d.offAlign != 0:
		return sizeError(m.size, d.offAlign, m.path)
	}
	m.physical = max(m.physical, int(d.offAlign))
	m.minIO = max(m.minIO, m.physical)
	d.pool.New = func() any { return d.newBounce() }
	m.direct = d
	return nil
}

func powerOfTwo(n uint64) bool { return bits.OnesCount64(n) == 1 }

// newBounce returns an aligned buffer. Go does not move heap objects.
func (d *direct) newBounce() *[]byte {
	b := make([]byte, bounceSize+int(d.memAlign))
	skip := -address(b) & (d.memAlign - 1)
	b = b[skip : skip+bounceSize]
	return &b
}

func (d *direct) move(fd int, t *transfer, bufs [][]byte, off, n int64) error {
	if t == &writes {
		if d.splits(off, n) {
			d.partial.Lock()
			defer d.partial.Unlock()
		} else {
			d.partial.RLock()
			defer d.partial.RUnlock()
		}
	}
	if !d.splits(off, n) && d.aligned(bufs) {
		return moveAll(fd, t, bufs, off)
	}
	return d.bounce(fd, t, bufs, off, n)
}

// splits reports whether a range begins or ends within a block.
func (d *direct) splits(off, n int64) bool { return (off|n)&(d.offAlign-1) != 0 }

func (d *direct) aligned(bufs [][]byte) bool {
	for _, b := range bufs {
		if address(b)&(d.memAlign-1) != 0 || int64(len(b))&(d.offAlign-1) != 0 {
			return false
		}
	}
	return true
}

// bounce moves bufs through whole blocks in a bounce buffer.
func (d *direct) bounce(fd int, t *transfer, bufs [][]byte, off, n int64) error {
	p := d.pool.Get().(*[]byte)
	defer d.pool.Put(p)
	c, end := cursor{bufs: bufs}, off+n
	for off < end {
		first := off &^ (d.offAlign - 1)
		last := min((end+d.offAlign-1)&^(d.offAlign-1), first+bounceSize)
		b := (*p)[:last-first]
		part := b[off-first : min(end, last)-first]
		if t == &reads || d.splits(off, int64(len(part))) {
			if err := moveOne(fd, &reads, b, first); err != nil {
				return err
			}
		}
		off += int64(len(part))
		for len(part) > 0 {
			next := c.next(len(part))
			if t == &reads {
				copy(next, part)
			} else {
				copy(part, next)
			}
			part = part[len(next):]
		}
		if t == &writes {
			if err := moveOne(fd, &writes, b, first); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveOne moves one aligned buffer. A transfer that stops within a sector cannot be
// continued: the file has become shorter.
func moveOne(fd int, t *transfer, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := callOne(t.trap, fd, b, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return t.none
		case n%SectorSize != 0:
			return io.ErrUnexpectedEOF
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

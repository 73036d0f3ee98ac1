package disk

import (
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A transfer is preadv2 or pwritev2.
type transfer struct {
	name string
	trap uintptr
	none error // the error if nothing is moved
}

var (
	reads  = transfer{"read", unix.SYS_PREADV2, io.ErrUnexpectedEOF}
	writes = transfer{"write", unix.SYS_PWRITEV2, io.ErrShortWrite}
)

// ReadvAt fills bufs from byte off of the disk on. If the file has become shorter since
// it was opened, it returns an error, never zeroes.
func (m *Image) ReadvAt(bufs [][]byte, off int64) error {
	return m.move(&reads, bufs, off)
}

// WritevAt writes bufs from byte off on.
func (m *Image) WritevAt(bufs [][]byte, off int64) error {
	return m.move(&writes, bufs, off)
}

func (m *Image) move(t *transfer, bufs [][]byte, off int64) error {
	n := length(bufs)
	err := m.check(off, n)
	switch {
	case err != nil || n == 0:
	case m.direct != nil:
		err = m.direct.move(m.fd, t, bufs, off, n)
	default:
		err = moveAll(m.fd, t, bufs, off)
	}
	if err != nil {
		return m.failed(t.name, err)
	}
	return nil
}

// TryReadvAt is ReadvAt if that need not wait for the medium. Else done is false, and
// the content of the buffers is undefined.
func (m *Image) TryReadvAt(bufs [][]byte, off int64) (done bool, err error) {
	return m.try(&reads, &m.noTryRead, bufs, off)
}

// TryWritevAt is WritevAt if that need not wait for the medium. Else done is false, and
// a part may be written. Many file systems cannot tell, and then done is always false.
func (m *Image) TryWritevAt(bufs [][]byte, off int64) (done bool, err error) {
	return m.try(&writes, &m.noTryWrite, bufs, off)
}

// try makes one call with RWF_NOWAIT, or without where nothing waits. Direct I/O would
// wait even so.
func (m *Image) try(t *transfer, never *atomic.Bool, bufs [][]byte, off int64) (done bool, err error) {
	n := length(bufs)
	if m.direct != nil || never.Load() || len(bufs) > maxVector || n == 0 {
		return false, nil
	}
	if err := m.check(off, n); err != nil {
		return true, m.failed(t.name, err)
	}
	flags := uintptr(unix.RWF_NOWAIT)
	if m.memory {
		flags = 0
	}
	c := cursor{bufs: bufs}
	var v vector
	moved, err := call(t.trap, m.fd, v[:c.fill(&v)], off, flags)
	if err != nil && unsupported(err) {
		never.Store(true)
	}
	return err == nil && int64(moved) == n, nil // the blocking call finds a persistent error
}

// check bounds a transfer to the disk: a write past its end would make a file longer.
func (m *Image) check(off, n int64) error {
	if off < 0 || off > m.size || n > m.size-off {
		return unix.EINVAL
	}
	return nil
}

func length(bufs [][]byte) (n int64) {
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}

// moveAll makes as many calls as needed: the kernel limits the number of buffers, may
// stop early, and may be interrupted.
func moveAll(fd int, t *transfer, bufs [][]byte, off int64) error {
	c := cursor{bufs: bufs}
	var v vector
	for {
		k := c.fill(&v)
		if k == 0 {
			return nil
		}
		n, err := call(t.trap, fd, v[:k], off, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return t.none
		}
		c.skip(n)
		off += int64(n)
	}
}

// A cursor is the position of a transfer in its buffers.
type cursor struct {
	bufs [][]byte
	at   int // in bufs[0]
}

// skip advances by n bytes.
func (c *cursor) skip(n int) {
	for n > 0 {
		left := len(c.bufs[0]) - c.at
		if n < left {
			c.at += n
			return
		}
		n -= left
		c.bufs, c.at = c.bufs[1:], 0
	}
}

// next returns at most n bytes and advances by them.
func (c *cursor) next(n int) []byte {
	for c.at == len(c.bufs[0]) {
		c.bufs, c.at = c.bufs[1:], 0
	}
	b := c.bufs[0][c.at:]
	b = b[:min(n, len(b))]
	c.skip(len(b))
	return b
}

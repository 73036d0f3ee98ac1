package disk

import "golang.org/x/sys/unix"

// zeroChunk is how much is written at once if the host cannot make zeroes itself.
const zeroChunk = 1 << 20

var zeroes [zeroChunk]byte

const keepSize = unix.FALLOC_FL_KEEP_SIZE

// Discard tells the host that n bytes from off on are no longer needed. Their content
// is then unspecified. errors.ErrUnsupported means that this disk does not support it,
// and never will.
func (m *Image) Discard(off, n int64) error {
	if err := m.check(off, n); err != nil {
		return m.failed("discard", err)
	}
	if m.noTrims.Load() {
		return m.failed("discard", unix.EOPNOTSUPP)
	}
	f := m.punch
	if m.device { // only whole blocks
		f = func(off, n int64) error { return again(func() error { return blkdiscard(m.fd, off, n) }) }
		end := (off + n) &^ int64(m.logical-1)
		off = (off + int64(m.logical-1)) &^ int64(m.logical-1)
		n = end - off
	}
	if n <= 0 {
		return nil
	}
	defer m.changes()()
	if err := f(off, n); err != nil {
		if unsupported(err) {
			m.noTrims.Store(true)
		}
		return m.failed("discard", err)
	}
	return nil
}

// WriteZeroes makes n bytes from off on zero: by giving blocks back to the host if
// mayUnmap, else with zeroed blocks if the host supports them, else by writing zeroes.
func (m *Image) WriteZeroes(off, n int64, mayUnmap bool) error {
	err := m.check(off, n)
	if err == nil && n > 0 {
		err = m.writeZeroes(off, n, mayUnmap)
	}
	if err != nil {
		return m.failed("write zeroes", err)
	}
	return nil
}

func (m *Image) writeZeroes(off, n int64, mayUnmap bool) error {
	if m.opts.ReadOnly {
		return unix.EBADF
	}
	// A block device takes whole blocks only.
	if !m.device || (off|n)&int64(m.logical-1) == 0 {
		done, err := m.zeroFast(off, n, mayUnmap)
		if done || err != nil {
			return err
		}
	}
	for n > 0 {
		chunk := min(n, zeroChunk)
		if err := m.WritevAt([][]byte{zeroes[:chunk]}, off); err != nil {
			return err
		}
		off, n = off+chunk, n-chunk
	}
	return nil
}

// zeroFast asks the host to make zeroes; done is false if it cannot.
func (m *Image) zeroFast(off, n int64, mayUnmap bool) (done bool, err error) {
	defer m.changes()()
	if mayUnmap && !m.noPunch.Load() {
		if err = m.punch(off, n); err == nil || !unsupported(err) {
			return err == nil, err
		}
		m.noPunch.Store(true)
	}
	if !m.noZeroRange.Load() {
		err = m.allocate(unix.FALLOC_FL_ZERO_RANGE|keepSize, off, n)
		if err == nil || !unsupported(err) {
			return err == nil, err
		}
		m.noZeroRange.Store(true)
	}
	return false, nil
}

func (m *Image) punch(off, n int64) error {
	return m.allocate(unix.FALLOC_FL_PUNCH_HOLE|keepSize, off, n)
}

func (m *Image) allocate(mode uint32, off, n int64) error {
	return again(func() error { return unix.Fallocate(m.fd, mode, off, n) })
}

// changes keeps others from writing back a partly changed block that they read earlier;
// the caller calls end.
func (m *Image) changes() (end func()) {
	if m.direct == nil {
		return func() {}
	}
	m.direct.partial.RLock()
	return m.direct.partial.RUnlock
}

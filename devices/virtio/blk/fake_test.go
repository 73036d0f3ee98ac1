package blk

import (
	"fmt"
	"sync"
	"testing"
)

// memory is an Image in memory. It fails the test if a range is not inside.
type memory struct {
	t        testing.TB
	readOnly bool
	topology [4]int
	fail     func(op string) error // may be nil; called before each operation

	mu    sync.Mutex
	bytes []byte
	ops   []string // guarded by mu; only if keep
	keep  bool
}

func newMemory(t testing.TB, n int) *memory {
	m := &memory{t: t, bytes: make([]byte, n), topology: [4]int{512, 4096, 4096, 65536}, keep: true}
	for i := range m.bytes {
		m.bytes[i] = byte(i>>9 + i)
	}
	return m
}

func (m *memory) Size() int64    { return int64(len(m.bytes)) }
func (m *memory) ReadOnly() bool { return m.readOnly }
func (m *memory) Topology() (a, b, c, d int) {
	return m.topology[0], m.topology[1], m.topology[2], m.topology[3]
}
func (m *memory) Flush() error               { return m.do("flush", 0, 0, nil) }
func (m *memory) Discard(off, n int64) error { return m.do("discard", off, n, nil) }
func (m *memory) ReadvAt(b [][]byte, off int64) error {
	return m.do("read", off, length(b), func(disk []byte) {
		for _, p := range b {
			disk = disk[copy(p, disk):]
		}
	})
}

func (m *memory) WritevAt(b [][]byte, off int64) error {
	return m.do("write", off, length(b), func(disk []byte) {
		for _, p := range b {
			disk = disk[copy(disk, p):]
		}
	})
}

func (m *memory) WriteZeroes(off, n int64, mayUnmap bool) error {
	op := "zero"
	if mayUnmap {
		op = "unmap"
	}
	return m.do(op, off, n, func(disk []byte) { clear(disk) })
}

func (m *memory) do(op string, off, n int64, f func(disk []byte)) error {
	if off < 0 || n < 0 || off%512 != 0 || n%512 != 0 || off+n > int64(len(m.bytes)) || n == 0 && op != "flush" {
		m.t.Errorf("%s at %#x+%#x: not on the disk", op, off, n)
		return nil
	}
	if m.readOnly && op != "read" && op != "flush" {
		m.t.Errorf("%s of a read-only disk", op)
	}
	if m.fail != nil {
		if err := m.fail(op); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keep {
		m.ops = append(m.ops, fmt.Sprintf("%s %d+%d", op, off/512, n/512))
	}
	if f != nil {
		f(m.bytes[off : off+n])
	}
	return nil
}

func length(b [][]byte) (n int64) {
	for _, p := range b {
		n += int64(len(p))
	}
	return n
}

// cached is memory that never waits.
type cached struct{ *memory }

func (c cached) TryReadvAt(b [][]byte, off int64) (bool, error)  { return true, c.ReadvAt(b, off) }
func (c cached) TryWritevAt(b [][]byte, off int64) (bool, error) { return true, c.WritevAt(b, off) }

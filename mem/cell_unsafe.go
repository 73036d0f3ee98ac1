package mem

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Words returns the n 32-bit words at a, which must be 4-aligned. They alias
// guest memory as Slice does, and are in the host's byte order, which on amd64
// is the guest's. They are for sync/atomic: what one side publishes to the
// other is stored and loaded with it, whatever is only read or written under
// the protection of that may be accessed plainly.
func (m *Memory) Words(a Addr, n uint64) ([]uint32, error) {
	if a%4 != 0 {
		return nil, fmt.Errorf("guest memory %#x: not a multiple of 4", uint64(a))
	}
	if n > 1<<60 {
		return nil, &RangeError{a, n}
	}
	b, err := m.Slice(a, 4*n)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

// U16 is a 16-bit cell that the guest and we access concurrently, such as the
// index of a ring. Go has no 16-bit atomics, so it works on the aligned 32-bit
// word around it, which a 2-aligned cell never straddles.
type U16 struct {
	word  *uint32
	shift uint
}

// U16 returns the cell at a, which must be 2-aligned.
func (m *Memory) U16(a Addr) (U16, error) {
	if a%2 != 0 {
		return U16{}, fmt.Errorf("guest memory %#x: not a multiple of 2", uint64(a))
	}
	// Regions begin and end on pages: the word is in RAM if the cell is.
	w, err := m.Words(a&^3, 1)
	if err != nil {
		return U16{}, err
	}
	return U16{&w[0], uint(a&2) * 8}, nil
}

// Load reads the cell. No later read is moved before it.
func (c U16) Load() uint16 { return uint16(atomic.LoadUint32(c.word) >> c.shift) }

// Store writes the cell and leaves its neighbour alone, even if the guest
// writes that meanwhile. A guest that sees v sees all that was written before,
// and no later read of ours is moved before it: LOCK CMPXCHG is a full barrier.
func (c U16) Store(v uint16) {
	for {
		old := atomic.LoadUint32(c.word)
		word := old&^(0xffff<<c.shift) | uint32(v)<<c.shift
		if atomic.CompareAndSwapUint32(c.word, old, word) {
			return
		}
	}
}

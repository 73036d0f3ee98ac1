package mem

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Words returns the n 32-bit words at a, which must be 4-aligned. Like Slice, they
// alias guest memory; they are in the host's byte order, which on amd64 is the
// guest's. Use them with sync/atomic: words by which one side publishes data to the
// other are stored and loaded atomically. Data published in this way may be accessed
// plainly.
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

// U16 is a 16-bit cell that the guest and this program access concurrently, such as
// the index of a ring. Go has no 16-bit atomics, so it uses the aligned 32-bit word
// around the cell, which a 2-aligned cell never straddles.
type U16 struct {
	word  *uint32
	shift uint
}

// U16 returns the cell at a, which must be 2-aligned.
func (m *Memory) U16(a Addr) (U16, error) {
	if a%2 != 0 {
		return U16{}, fmt.Errorf("guest memory %#x: not a multiple of 2", uint64(a))
	}
	// Regions begin and end on page boundaries, so the word is in RAM if the cell
	// is.
	w, err := m.Words(a&^3, 1)
	if err != nil {
		return U16{}, err
	}
	return U16{&w[0], uint(a&2) * 8}, nil
}

// Load reads the cell. No later read moves before it.
func (c U16) Load() uint16 { return uint16(atomic.LoadUint32(c.word) >> c.shift) }

// Store writes the cell and leaves its neighbour unchanged, even if the guest writes
// that one meanwhile. A guest that sees v also sees everything written before. No
// later read of this program moves before the store: LOCK CMPXCHG is a full barrier.
func (c U16) Store(v uint16) {
	for {
		old := atomic.LoadUint32(c.word)
		word := old&^(0xffff<<c.shift) | uint32(v)<<c.shift
		if atomic.CompareAndSwapUint32(c.word, old, word) {
			return
		}
	}
}

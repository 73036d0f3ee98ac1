// Package mem is the guest's physical memory: its allocation, and its only access
// path, Slice, which checks bounds.
package mem

import "fmt"

// Addr is a guest physical address, in bytes.
type Addr uint64

// PageSize is the unit of all mappings.
const PageSize = 4096

// A Region is one contiguous piece of RAM.
type Region struct {
	Base  Addr
	Bytes []byte // mapped from the host; its length is a multiple of PageSize
}

// End returns the first address after r.
func (r Region) End() Addr { return r.Base + Addr(len(r.Bytes)) }

// Memory is all RAM of one guest. It never changes once built, so it needs no
// lock. The guest writes to it at any time: read a field once, then check the
// copy.
type Memory struct {
	regions []Region
	mapped  bool    // by Map, so Close unmaps it
	files   []Range // ranges that MapFile replaced, sorted
}

// RangeError reports an access that is not within one region.
type RangeError struct {
	Addr Addr
	Len  uint64
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("guest memory %#x+%#x is not RAM", uint64(e.Addr), e.Len)
}

// New returns a memory of the given regions, which must be sorted and disjoint. Tests
// use it with RAM on the Go heap, where the race detector sees it.
func New(regions ...Region) *Memory { return &Memory{regions: regions} }

// Regions returns all RAM, sorted. The caller must not change the list.
func (m *Memory) Regions() []Region { return m.regions }

// Size returns the number of bytes of RAM.
func (m *Memory) Size() uint64 {
	var n uint64
	for _, r := range m.regions {
		n += uint64(len(r.Bytes))
	}
	return n
}

// Slice returns the n bytes at a, or a *RangeError. The slice aliases guest
// memory, which the guest may change at any time.
func (m *Memory) Slice(a Addr, n uint64) ([]byte, error) {
	for _, r := range m.regions {
		size := uint64(len(r.Bytes))
		if off := uint64(a - r.Base); a >= r.Base && off < size && n <= size-off {
			return r.Bytes[off : off+n : off+n], nil
		}
	}
	return nil, &RangeError{a, n}
}

// Write copies p to a.
func (m *Memory) Write(a Addr, p []byte) error {
	b, err := m.Slice(a, uint64(len(p)))
	if err == nil {
		copy(b, p)
	}
	return err
}

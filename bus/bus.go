// Package bus routes the guest's port and memory accesses to devices.
package bus

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// A Device handles accesses to the range where it is mapped. It sees offsets, not
// addresses, and only accesses of 1 to 8 bytes that lie entirely inside its range. The
// device must handle guest errors itself: there is no error to return. Calls come from
// any vCPU's thread, and may be concurrent.
type Device interface {
	Read(off uint64, p []byte) // p is already filled with 0xff
	Write(off uint64, p []byte)
}

// Interrupt is an edge-triggered input of the guest's interrupt controller. Only the
// machine knows which one. Signal may be called from any goroutine and does not block.
type Interrupt interface{ Signal() }

// Line is the level of one interrupt input. Setting it to its current level does
// nothing. The caller serializes its own calls (a device makes them with its lock
// held); Set does not call back and does not block.
type Line interface{ Set(high bool) }

type span struct {
	base, size uint64
	dev        Device
}

// Bus is one address space: a machine has one for ports and one for memory. The zero
// Bus is empty. Lookups take no lock.
type Bus struct {
	mu    sync.Mutex             // guards changes to spans
	spans atomic.Pointer[[]span] // sorted; replaced, never changed
}

// Map maps d at [base, base+size).
func (b *Bus) Map(base, size uint64, d Device) error {
	if size == 0 || base+size-1 < base {
		return fmt.Errorf("bus: %#x+%#x is not a range", base, size)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.load()
	i := search(old, base)
	if i > 0 && base-old[i-1].base < old[i-1].size || i < len(old) && old[i].base-base < size {
		return fmt.Errorf("bus: %#x+%#x overlaps another device", base, size)
	}
	spans := slices.Insert(slices.Clone(old), i, span{base, size, d})
	b.spans.Store(&spans)
	return nil
}

// Unmap removes the device mapped at base. An access in progress may still reach it.
func (b *Bus) Unmap(base uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.load()
	i := slices.IndexFunc(old, func(s span) bool { return s.base == base })
	if i < 0 {
		return fmt.Errorf("bus: no device at %#x", base)
	}
	spans := slices.Delete(slices.Clone(old), i, i+1)
	b.spans.Store(&spans)
	return nil
}

// Read fills p from the device at addr, or with 0xff if there is none.
func (b *Bus) Read(addr uint64, p []byte) {
	for i := range p {
		p[i] = 0xff
	}
	if s, ok := b.find(addr, len(p)); ok {
		s.dev.Read(addr-s.base, p)
	}
}

// Write passes p to the device at addr, if any.
func (b *Bus) Write(addr uint64, p []byte) {
	if s, ok := b.find(addr, len(p)); ok {
		s.dev.Write(addr-s.base, p)
	}
}

func (b *Bus) find(addr uint64, n int) (span, bool) {
	spans := b.load()
	i := search(spans, addr)
	if i == len(spans) || spans[i].base != addr {
		i--
	}
	if i >= 0 {
		s := spans[i]
		if off := addr - s.base; off < s.size && uint64(n) <= s.size-off {
			return s, true
		}
	}
	return span{}, false
}

func (b *Bus) load() []span {
	if p := b.spans.Load(); p != nil {
		return *p
	}
	return nil
}

// search returns the number of spans that start below addr.
func search(spans []span, addr uint64) int {
	lo, hi := 0, len(spans)
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); spans[mid].base < addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

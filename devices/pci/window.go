package pci

import "fmt"

// A Window is a range of addresses, [Base, End), that the host bridge forwards to its
// bus: memory or ports. ACPI's _CRS describes the windows to the guest.
type Window struct {
	Base, End uint64
	Ports     bool
}

const fourGiB = 1 << 32

func (b *Bus) contains(addr, size uint64, ports bool) bool {
	for _, w := range b.windows {
		if w.Ports == ports && addr >= w.Base && addr < w.End && size <= w.End-addr {
			return true
		}
	}
	return false
}

// assign gives the BARs of f their initial addresses.
func (b *Bus) assign(f *Function) error {
	taken := len(b.taken)
	for i, r := range f.bars {
		if r.Size == 0 {
			continue
		}
		addr, ok := b.allocate(r.BAR)
		if !ok {
			b.taken = b.taken[:taken]
			return fmt.Errorf("pci: slot %d: no room for BAR %d of %#x bytes", f.slot, i, r.Size)
		}
		b.taken = append(b.taken, Window{addr, addr + r.Size, r.Ports})
		at := regBAR + 4*i
		le.PutUint32(f.initial[at:], uint32(addr)|uint32(f.initial[at]))
		if r.Is64 {
			le.PutUint32(f.initial[at+4:], uint32(addr>>32))
		}
	}
	return nil
}

// allocate finds a naturally aligned place. 64-bit BARs go above 4 GiB if there is
// room, because other BARs cannot.
func (b *Bus) allocate(r BAR) (uint64, bool) {
	if r.Is64 {
		for _, w := range b.windows {
			w.Base = max(w.Base, fourGiB)
			if addr, ok := b.fit(w, r); ok {
				return addr, true
			}
		}
	}
	for _, w := range b.windows {
		w.End = min(w.End, fourGiB)
		if addr, ok := b.fit(w, r); ok {
			return addr, true
		}
	}
	return 0, false
}

// fit finds the first free place in w. It never returns address 0, which means "not
// assigned" to Linux.
func (b *Bus) fit(w Window, r BAR) (uint64, bool) {
	size := r.Size
	if w.Ports != r.Ports {
		return 0, false
	}
	addr := max(w.Base, size)
	for {
		if addr > ^(size - 1) { // would wrap around when aligned
			return 0, false
		}
		addr = (addr + size - 1) &^ (size - 1)
		if addr >= w.End || size > w.End-addr {
			return 0, false
		}
		end := b.conflict(Window{addr, addr + size, r.Ports})
		if end == 0 {
			return addr, true
		}
		addr = end
	}
}

// conflict returns the end of a taken range that overlaps w, or 0.
func (b *Bus) conflict(w Window) uint64 {
	for _, t := range b.taken {
		if t.Ports == w.Ports && w.Base < t.End && t.Base < w.End {
			return t.End
		}
	}
	return 0
}

package boot

import (
	"cmp"
	"fmt"
	"slices"

	"vmm/mem"
)

// Memory types shared by boot_params and PVH (ACPI 6.4, 15.1).
const (
	typeRAM      = 1
	typeReserved = 2
)

// A mapEntry is one entry of the memory map passed to the kernel.
type mapEntry struct {
	base, size uint64
	typ        uint32
}

// usable returns the RAM of m that a kernel may use: all except the hole below 1 MiB
// and the reserved ranges.
func usable(m *mem.Memory, reserved []mem.Range) []mem.Range {
	var ram []mem.Range
	for _, r := range m.Regions() {
		ram = append(ram, mem.Range{Base: r.Base, Size: uint64(len(r.Bytes))})
	}
	ram = cut(ram, mem.Range{Base: holeBase, Size: uint64(holeEnd - holeBase)})
	for _, r := range reserved {
		ram = cut(ram, r)
	}
	return ram
}

// cut returns ranges with hole removed.
func cut(ranges []mem.Range, hole mem.Range) []mem.Range {
	var out []mem.Range
	for _, r := range ranges {
		end, holeEnd := r.Base+mem.Addr(r.Size), hole.Base+mem.Addr(hole.Size)
		if e := min(end, hole.Base); e > r.Base {
			out = append(out, mem.Range{Base: r.Base, Size: uint64(e - r.Base)})
		}
		if b := max(r.Base, holeEnd); b < end {
			out = append(out, mem.Range{Base: b, Size: uint64(end - b)})
		}
	}
	return out
}

// memoryMap returns the memory map for the kernel: usable RAM and reserved ranges,
// sorted.
func memoryMap(ram, reserved []mem.Range) ([]mapEntry, error) {
	var entries []mapEntry
	for _, r := range ram {
		entries = append(entries, mapEntry{uint64(r.Base), r.Size, typeRAM})
	}
	for _, r := range reserved {
		if r.Size == 0 {
			continue
		}
		entries = append(entries, mapEntry{uint64(r.Base), r.Size, typeReserved})
	}
	slices.SortFunc(entries, func(a, b mapEntry) int { return cmp.Compare(a.base, b.base) })
	if len(entries) > maxMapSize {
		return nil, fmt.Errorf("memory map: %d entries, a kernel takes %d", len(entries), maxMapSize)
	}
	return entries, nil
}

// holds reports whether [base, base+size) lies within one of ranges.
func holds(ranges []mem.Range, base mem.Addr, size uint64) bool {
	return slices.ContainsFunc(ranges, func(r mem.Range) bool {
		return base >= r.Base && size <= r.Size && uint64(base-r.Base) <= r.Size-size
	})
}

// lowest returns the lowest aligned address at or above from with room for size bytes.
func lowest(ranges []mem.Range, from mem.Addr, size, align uint64) (mem.Addr, bool) {
	for _, r := range ranges {
		base := alignUp(uint64(max(from, r.Base)), align)
		if base >= uint64(r.Base) && holds([]mem.Range{r}, mem.Addr(base), size) {
			return mem.Addr(base), true
		}
	}
	return 0, false
}

// highest returns the highest page-aligned address in [from, limit) with room for size
// bytes.
func highest(ranges []mem.Range, from, limit mem.Addr, size uint64) (mem.Addr, bool) {
	for _, r := range slices.Backward(ranges) {
		end := min(r.Base+mem.Addr(r.Size), limit)
		if uint64(end) < size {
			continue
		}
		base := (end - mem.Addr(size)) &^ (mem.PageSize - 1)
		if base >= max(from, r.Base) {
			return base, true
		}
	}
	return 0, false
}

// alignUp rounds v up to a multiple of align, a power of two. Above the last multiple
// it wraps to 0.
func alignUp(v, align uint64) uint64 { return (v + align - 1) &^ (align - 1) }

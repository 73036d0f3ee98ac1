package boot

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"vmm/mem"
)

// A segment is a piece of an unpacked kernel: FileSize bytes at Off in its source
// belong at the physical address Addr; zeros follow, up to MemSize.
type segment struct {
	Addr, Off, FileSize, MemSize uint64
}

// An image is an unpacked kernel: an ELF file, an ELF unpacked into memory, or an
// entry of the cache.
type image struct {
	src      io.ReaderAt
	immortal *os.File // src, if it is ours and never changes, so it may be mapped
	entry    uint64   // physical, in 64-bit mode; 0 if there is none
	pvh      uint32   // physical, in 32-bit protected mode; 0 if there is none
	segments []segment
}

// check sorts the segments and returns an error if they are invalid.
func (img *image) check() error {
	if len(img.segments) == 0 {
		return errors.New("an ELF without anything to load: not a kernel")
	}
	slices.SortFunc(img.segments, func(a, b segment) int { return cmp.Compare(a.Addr, b.Addr) })
	end := uint64(holeEnd) // the boot structures are below it
	for _, s := range img.segments {
		switch {
		case s.FileSize > s.MemSize || s.MemSize > maxImage || s.Addr > 1<<52:
			return fmt.Errorf("a segment of %#x bytes, %#x in memory, at %#x: not a kernel", s.FileSize, s.MemSize, s.Addr)
		case s.Addr < end:
			return fmt.Errorf("a segment at %#x, below 1 MiB or over another: not a kernel that can start here", s.Addr)
		}
		end = s.Addr + s.MemSize
	}
	return nil
}

// close closes the image's cache file, if it has one.
func (img *image) close() {
	if c, ok := img.src.(io.Closer); ok {
		c.Close()
	}
}

// has reports whether the address is in a segment.
func (img *image) has(addr uint64) bool {
	return slices.ContainsFunc(img.segments, func(s segment) bool { return addr >= s.Addr && addr-s.Addr < s.MemSize })
}

// place loads the segments into memory.
func (img *image) place(m *mem.Memory) error {
	for _, s := range img.segments {
		if img.immortal != nil && (s.Addr^s.Off)%mem.PageSize == 0 && img.mapSegment(m, s) == nil {
			continue
		}
		// Also if m cannot be mapped over, which costs only time.
		if err := img.copySegment(m, s); err != nil {
			return err
		}
	}
	return nil
}

// mapSegment maps the whole pages of s and copies the ends.
func (img *image) mapSegment(m *mem.Memory, s segment) error {
	first := alignUp(s.Addr, mem.PageSize)
	last := (s.Addr + s.FileSize) &^ (mem.PageSize - 1)
	if first >= last {
		return img.copySegment(m, s)
	}
	head := segment{Addr: s.Addr, Off: s.Off, FileSize: first - s.Addr}
	tail := segment{Addr: last, Off: s.Off + last - s.Addr, FileSize: s.Addr + s.FileSize - last}
	if err := m.MapFile(mem.Addr(first), img.immortal, int64(s.Off+first-s.Addr), last-first); err != nil {
		return err
	}
	return errors.Join(img.copySegment(m, head), img.copySegment(m, tail))
}

// copySegment reads directly into guest memory.
func (img *image) copySegment(m *mem.Memory, s segment) error {
	if s.FileSize == 0 {
		return nil
	}
	b, err := m.Slice(mem.Addr(s.Addr), s.FileSize)
	if err != nil {
		return err
	}
	if _, err := img.src.ReadAt(b, int64(s.Off)); err != nil {
		return fmt.Errorf("segment at %#x: %w", s.Addr, err)
	}
	return nil
}

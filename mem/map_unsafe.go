package mem

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Range is the location of a region.
type Range struct {
	Base Addr
	Size uint64 // a multiple of PageSize
}

func (r Range) end() Addr { return r.Base + Addr(r.Size) }

const hugePage = 2 << 20

// Map allocates zeroed RAM at the given ranges, which must be sorted and disjoint. It
// is private anonymous memory that takes host memory only once touched
// (MAP_NORESERVE), in huge pages where the host grants them. The caller closes it when
// no vCPU and no device can access it any more.
func Map(ranges ...Range) (*Memory, error) {
	m := &Memory{mapped: true}
	for _, r := range ranges {
		b, err := mapAligned(r.Size)
		if err != nil {
			m.Close()
			return nil, fmt.Errorf("guest memory of %d MiB: %w", r.Size>>20, err)
		}
		m.regions = append(m.regions, Region{r.Base, b})
	}
	return m, nil
}

// mapAligned returns size bytes whose host address is a multiple of the huge page
// size, like guest physical addresses: only then can KVM map huge pages.
func mapAligned(size uint64) ([]byte, error) {
	if size == 0 || size%PageSize != 0 || size+hugePage < size {
		return nil, fmt.Errorf("%#x bytes is not a number of pages", size)
	}
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size)+hugePage, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	head := -uintptr(p) % hugePage
	if head > 0 {
		unix.MunmapPtr(p, head)
	}
	start := unsafe.Add(p, head)
	unix.MunmapPtr(unsafe.Add(start, size), hugePage-head)
	b := unsafe.Slice((*byte)(start), size)
	// Advice only: a host without transparent huge pages returns EINVAL.
	unix.Madvise(b, unix.MADV_HUGEPAGE)
	// A core dump of the VMM must not hold the guest's memory.
	unix.Madvise(b, unix.MADV_DONTDUMP)
	return b, nil
}

// MapFile replaces the n bytes of RAM at a by a private copy-on-write mapping of f at
// off; all three must be multiples of PageSize. f must never be truncated while the
// memory is in use: an access past its end kills the process (SIGBUS). It works only
// on memory from Map, before any Discard.
func (m *Memory) MapFile(a Addr, f *os.File, off int64, n uint64) error {
	b, err := m.Slice(a, n)
	if err != nil {
		return err
	}
	if !m.mapped || n == 0 || (uint64(a)|uint64(off)|n)%PageSize != 0 {
		return fmt.Errorf("map %s at %#x+%#x: %w", f.Name(), uint64(a), n, unix.EINVAL)
	}
	const flags = unix.MAP_PRIVATE | unix.MAP_FIXED | unix.MAP_NORESERVE
	_, err = unix.MmapPtr(int(f.Fd()), off, unsafe.Pointer(&b[0]), uintptr(n), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return fmt.Errorf("map %s: %w", f.Name(), os.NewSyscallError("mmap", err))
	}
	unix.Madvise(b, unix.MADV_DONTDUMP)
	m.files = append(m.files, Range{a, n})
	slices.SortFunc(m.files, func(x, y Range) int { return cmp.Compare(x.Base, y.Base) })
	return nil
}

// Close returns the memory to the host. All slices of it become invalid.
func (m *Memory) Close() error {
	if !m.mapped {
		return nil
	}
	var errs []error
	for _, r := range m.regions {
		if err := unix.MunmapPtr(unsafe.Pointer(&r.Bytes[0]), uintptr(len(r.Bytes))); err != nil {
			errs = append(errs, os.NewSyscallError("munmap", err))
		}
	}
	m.regions = nil
	return errors.Join(errs...)
}

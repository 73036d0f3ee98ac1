package mem

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Discard returns the host memory under b, a slice of m, to the host: its whole pages
// read as zeros from now on, and take host memory again once touched. Pages that are
// only partly in b stay as they are. So does RAM that MapFile replaced: its pages
// would show the file's contents, not zeros.
//
// It may be called at any time, on any goroutine. Slices of the pages stay valid: a
// concurrent user sees old bytes or zeros, and loses what it writes.
func (m *Memory) Discard(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	first, end := m.pages(b)
	for _, f := range m.files {
		if f.end() <= first || f.Base >= end {
			continue
		}
		if err := m.discard(first, f.Base); err != nil {
			return err
		}
		first = f.end()
	}
	return m.discard(first, end)
}

// pages returns the first address and the end of the whole pages in a slice of m.
func (m *Memory) pages(b []byte) (first, end Addr) {
	at := uintptr(unsafe.Pointer(&b[0]))
	for _, r := range m.regions {
		off := at - uintptr(unsafe.Pointer(&r.Bytes[0]))
		if size := uintptr(len(r.Bytes)); off < size && uintptr(len(b)) <= size-off {
			a := r.Base + Addr(off)
			return (a + PageSize - 1) &^ (PageSize - 1), (a + Addr(len(b))) &^ (PageSize - 1)
		}
	}
	panic("internal error: guest memory: discard of what is none of it")
}

// discard returns the pages from first to end to the host, if there are any. They are
// in one region.
func (m *Memory) discard(first, end Addr) error {
	if first >= end {
		return nil
	}
	b, err := m.Slice(first, uint64(end-first))
	if err != nil {
		return err
	}
	if !m.mapped {
		clear(b)
		return nil
	}
	return os.NewSyscallError("madvise", unix.Madvise(b, unix.MADV_DONTNEED))
}

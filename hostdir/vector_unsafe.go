package hostdir

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVector is how many buffers go into one call: enough to read 1 MiB into pages that
// are not contiguous, and small enough for the stack, so it costs no allocation.
const maxVector = 256

type vector [maxVector]unix.Iovec

// fill describes the first of bufs, none of which may be empty, and returns how many
// buffers and bytes.
func (v *vector) fill(bufs [][]byte) (k, n int) {
	for _, b := range bufs[:min(len(bufs), len(v))] {
		v[k].Base = unsafe.SliceData(b)
		v[k].SetLen(len(b))
		k++
		n += len(b)
	}
	return k, n
}

// call is preadv, pwritev or preadv2 with the first k buffers; only preadv2 has flags.
func (v *vector) call(trap uintptr, fd, k int, off int64, flags uintptr) (int, error) {
	// The offset is in one register; the next is the high half of 32-bit systems.
	n, _, e := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(v)), uintptr(k), uintptr(off), 0, flags) // again, by the caller
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

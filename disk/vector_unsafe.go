package disk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVector is how many buffers go into one call: more than a guest's request usually
// has, less than IOV_MAX, and small enough for the stack, so it costs no allocation.
// unix.Preadv allocates from 9 buffers on.
const maxVector = 128

type vector [maxVector]unix.Iovec

// fill describes the rest of c's buffers and returns how many fitted. Empty ones are
// left out.
func (c *cursor) fill(v *vector) (k int) {
	at := c.at
	for _, b := range c.bufs {
		if b = b[at:]; len(b) > 0 {
			if k == len(v) {
				break
			}
			v[k].Base = unsafe.SliceData(b)
			v[k].SetLen(len(b))
			k++
		}
		at = 0
	}
	return k
}

// call is preadv2 or pwritev2. Go's Syscall, unlike RawSyscall, lets other goroutines
// run while the kernel waits.
func call(trap uintptr, fd int, v []unix.Iovec, off int64, flags uintptr) (int, error) {
	// The offset is in one register; the next is the high half of 32-bit systems.
	n, _, e := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)), uintptr(off), 0, flags)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// callOne is call with one buffer.
func callOne(trap uintptr, fd int, b []byte, off int64) (int, error) {
	v := [1]unix.Iovec{{Base: unsafe.SliceData(b)}}
	v[0].SetLen(len(b))
	return call(trap, fd, v[:], off, 0)
}

// address returns the address of b, to check its alignment.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// blkdiscard is ioctl BLKDISCARD: off and n, in bytes.
func blkdiscard(fd int, off, n int64) error {
	arg := [2]uint64{uint64(off), uint64(n)}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&arg))); e != 0 {
		return e
	}
	return nil
}

package hostsock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVector is how many buffers go into one call: 256 KiB of Linux's buffers. It is
// small enough for the stack, so it costs no allocation.
const maxVector = 64

// vector is readv or writev. It returns how many bytes were moved, and how many were
// asked for.
func vector(trap uintptr, fd int, bufs [][]byte) (n, asked int, err error) {
	var v [maxVector]unix.Iovec
	for i, b := range bufs {
		v[i].Base = unsafe.SliceData(b)
		v[i].SetLen(len(b))
		asked += len(b)
	}
	moved, _, errno := unix.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&v[0])), uintptr(len(bufs)))
	if errno != 0 {
		return 0, asked, errno
	}
	return int(moved), asked, nil
}

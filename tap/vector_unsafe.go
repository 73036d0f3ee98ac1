package tap

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"vmm/ethernet"
)

// maxVector is how many buffers a frame may have besides its header: IOV_MAX in all.
const maxVector = 1023

// vector is the argument of readv and writev. It is kept because it would escape.
type vector [maxVector + 1]unix.Iovec

// call reads or writes h and at most maxVector bufs. The fd does not block.
func (v *vector) call(trap uintptr, fd int, h *ethernet.Header, bufs [][]byte) (int, error) {
	v.set(0, h[:])
	for i, b := range bufs {
		v.set(1+i, b)
	}
	n, _, errno := unix.Syscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&v[0])), uintptr(1+len(bufs)))
	clear(v[:1+len(bufs)])
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (v *vector) set(i int, b []byte) {
	v[i].Base = unsafe.SliceData(b)
	v[i].SetLen(len(b))
}

package hostdir

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

var overrideName = append([]byte(overrideXattr), 0)

// readOverride reads the attribute of a descriptor's inode, O_PATH or not, and returns
// its length. It is called for each name that a guest looks up, and does not allocate.
func readOverride(fd int, value *[maxOverride]byte) (int, error) {
	var path [32]byte
	p := append(path[:0], "/proc/self/fd/"...)
	p = append(strconv.AppendInt(p, int64(fd), 10), 0)
	for {
		n, _, e := unix.Syscall6(unix.SYS_GETXATTR, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(unsafe.Pointer(&overrideName[0])), // again, below
			uintptr(unsafe.Pointer(value)), maxOverride, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

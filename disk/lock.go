package disk

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

var errInUse = errors.New("another process uses it, or it is mounted: end that first; several may share a disk only if all open it read-only")

// lock excludes a second writer, and writers and readers from each other. The lock
// belongs to the open file description: it excludes other opens in this process too,
// lasts until the descriptor and its copies are closed, and ends with the process. QEMU
// locks its images the same way, so the locks conflict.
func lock(fd int, readOnly bool) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart} // Len 0: to the end, wherever that is
	if readOnly {
		l.Type = unix.F_RDLCK
	}
	err := again(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l) })
	switch err {
	case nil:
		return nil
	case unix.EAGAIN, unix.EACCES:
		return errInUse
	}
	return fmt.Errorf("lock: %w: keep the disk on a file system that has locks", err)
}

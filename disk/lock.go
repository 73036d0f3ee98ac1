package disk

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

var errInUse = errors.New("another process uses it, or it is mounted: end that first; several may share a disk only if all open it read-only")

// lock keeps a second writer out, and writers and readers from each other. The
// lock is of the open file description: it excludes other opens in this process
// too, lives until the descriptor and its copies are closed, and dies with the
// process. QEMU's locks on its images are of the same kind, and conflict.
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

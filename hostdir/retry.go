package hostdir

import "golang.org/x/sys/unix"

// Any call that waits for a file system can be interrupted: Go's runtime sends signals
// to its threads at any time, and some file systems (FUSE, NFS) then end a call with
// EINTR. This package makes all such calls through again or got (TestRetry).

// again repeats a call as long as a signal interrupts it.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// got is again for a call that returns a number: a descriptor or a length. It returns
// -1 with an error.
func got(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err == nil {
			return n, nil
		}
		if err != unix.EINTR {
			return -1, err
		}
	}
}

func fstat(fd int, st *unix.Stat_t) error { return again(func() error { return unix.Fstat(fd, st) }) }

func fstatat(dir int, name string, st *unix.Stat_t) error {
	return again(func() error { return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT) })
}

func fstatfs(fd int, st *unix.Statfs_t) error {
	return again(func() error { return unix.Fstatfs(fd, st) })
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	return got(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode) })
}

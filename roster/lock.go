package roster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dirLock is the file of the runtime directory whose lock is held while folders
// come and go.
const dirLock = ".lock"

// lockLimit is how long another process may take for its few calls, of which all
// others wait for the last; it must not hold them up for ever if it was stopped.
const (
	lockLimit = 10 * time.Second
	lockPoll  = time.Millisecond
)

// exclusive takes the directory's lock.
func (r *Roster) exclusive() (release func(), err error) {
	f, err := r.root.OpenFile(dirLock, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		f, err = openFile(r.root, dirLock, os.O_RDWR)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.path(dirLock), reason(err))
	}
	for end := time.Now().Add(r.patience); ; time.Sleep(lockPoll) {
		switch err := lock(f); {
		case err == nil:
			return func() { f.Close() }, nil
		case err != unix.EAGAIN && err != unix.EACCES:
			f.Close()
			return nil, fmt.Errorf("%s: %w", r.path(dirLock), err)
		case time.Now().After(end):
			f.Close()
			return nil, fmt.Errorf("%s: a process has held its lock for %v; see which with: fuser %[1]s", r.path(dirLock), r.patience)
		}
	}
}

// lock takes the lock on a file, which is its open description's (fcntl(2), OFD
// locks): no other descriptor of the process loses it by being closed.
func lock(f *os.File) error {
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err != unix.EINTR {
			return err
		}
	}
}

// held reports whether some process has the lock, without taking it.
func held(f *os.File) bool {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) != nil || l.Type != unix.F_UNLCK
}

package roster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dirLock is the file in the runtime directory whose lock is held while folders are
// made and removed.
const dirLock = ".lock"

// lockLimit is how long another process may hold the lock for its few calls. A stopped
// process must not hold up the others forever.
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

// lock locks a file. The lock belongs to the open file description (fcntl(2), OFD
// locks): closing another descriptor in the process does not release it.
func lock(f *os.File) error {
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err != unix.EINTR {
			return err
		}
	}
}

// held reports whether a process holds the lock, without taking it.
func held(f *os.File) bool {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) != nil || l.Type != unix.F_UNLCK
}

package roster

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Of an open description's lock the kernel does not say who has it. So a guest's
// process takes a second lock, on a file of its own, that is the process's: for
// that the kernel tells the holder's pid (fcntl(2), F_GETLK), and nobody can lie.

// lockProcess takes that lock. It is lost when any descriptor of f's file is
// closed in this process, so that nothing else may open it.
func lockProcess(f *os.File) error {
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err != unix.EINTR {
			return err
		}
	}
}

// errGone says that there is nothing to kill.
var errGone = errors.New("its process has ended")

// holder is the process that runs a guest, of which f is the file pid; 0 if there
// is none.
func holder(f *os.File) (pid int, err error) {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &l); err != nil || l.Type == unix.F_UNLCK {
		return 0, err
	}
	if l.Pid <= 0 {
		return 0, errors.New("its process is in another container (PID namespace); kill it from there")
	}
	return int(l.Pid), nil
}

// Kill ends the process of a guest by SIGKILL, without its help: for one that
// hangs, or is stopped. The guest's folder stays as it is. It is not for guests of
// this process.
func Kill(e Entry) error {
	bad := func(err error) error { return fmt.Errorf("guest %s: %w", e.Name, reason(err)) }
	root, lock, err := e.open()
	if err != nil {
		return bad(err)
	}
	defer root.Close()
	defer lock.Close()
	f, err := openFile(root, pidFile, os.O_RDONLY)
	if err != nil {
		return bad(err)
	}
	defer f.Close()
	pid, err := holder(f)
	if err != nil || pid == 0 {
		return bad(cmp.Or(err, errGone))
	}
	// The descriptor is that process's if it still has the lock: then its pid was
	// not another's in between.
	process, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(process)
	}
	if now, lost := holder(f); lost != nil || now != pid || !held(lock) {
		return nil // it has ended meanwhile
	}
	if err == nil {
		err = unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0)
	} else { // a kernel before Linux 5.3
		err = unix.Kill(pid, unix.SIGKILL)
	}
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("guest %s: process %d cannot be killed: %w", e.Name, pid, err)
	}
	return nil
}

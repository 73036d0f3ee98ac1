package roster

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The kernel does not say which process holds an open file description's lock. So a
// guest's process takes a second lock, on another file, that belongs to the process.
// For this one the kernel reports the holder's pid (fcntl(2), F_GETLK), which cannot be
// forged.

// lockProcess takes that lock. Closing any descriptor of f's file in this process
// releases it, so nothing else may open the file.
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

// holder returns the pid of the process that runs the guest with the pid file f, or 0
// if there is none.
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

// Kill ends a guest's process with SIGKILL, without its help: for a process that hangs
// or is stopped. The guest's folder stays as it is. Kill is not for guests of this
// process.
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
	// If the process still holds the lock, the descriptor refers to it: the pid was not
	// reused in between.
	process, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(process)
	}
	if now, lost := holder(f); lost != nil || now != pid || !held(lock) {
		return nil // it has ended in the meantime
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

package service

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmm/task"
)

// stderr is the standard error file of a guest in the background. What Go's runtime
// prints at a crash must arrive without our help, so it is a file and not a pipe.
// Other output, for example from libraries, must not fill the disk, so the size is
// checked after writes and the file is turned as a log is.
type stderr struct {
	log   *logFile
	use   func(*os.File) error
	bound task.Group
	end   chan struct{} // closed at the end

	changes *os.File // inotify(7); nil if the host has no more instances
	fd      int      // of changes
	wd      int      // the watch in it
	blind   bool     // it watches nothing
}

// lookAgain is the time between two checks of a file that cannot be watched.
const lookAgain = 10 * time.Second

// KeepStderr makes a file in the guest's folder, which must exist, and passes it to
// use, which makes it standard error. When that file is full, it does the same with
// the next. It is called once.
func (g *Guest) KeepStderr(name string, use func(*os.File) error) error {
	return g.keepStderr(name, LogSize, use)
}

func (g *Guest) keepStderr(name string, size int64, use func(*os.File) error) error {
	log, err := openLog(g.claim.Root(), name, size)
	if err != nil {
		return err
	}
	if err := use(log.f); err != nil {
		return errors.Join(err, log.Close())
	}
	s := &stderr{log: log, use: use, end: make(chan struct{}), fd: -1, wd: -1, blind: true}
	if s.fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err == nil {
		s.changes = os.NewFile(uintptr(s.fd), "inotify")
		s.watch()
	}
	s.bound.Owner = g.o.Owner
	s.bound.Go(s.turn)
	g.stderr = s
	return nil
}

// watch makes a Read of changes return when the current file is written to.
func (s *stderr) watch() {
	if s.wd >= 0 {
		unix.InotifyRmWatch(s.fd, uint32(s.wd)) // fails if the file has gone
	}
	var err error
	s.wd, err = unix.InotifyAddWatch(s.fd, fmt.Sprintf("/proc/self/fd/%d", s.log.f.Fd()), unix.IN_MODIFY)
	s.blind = err != nil
}

// await waits until it is time to check, and returns false at the end.
func (s *stderr) await() bool {
	if s.blind {
		select {
		case <-s.end:
			return false
		case <-time.After(lookAgain):
			return true
		}
	}
	var events [1 << 10]byte // the contents do not matter, only that there are some
	_, err := s.changes.Read(events[:])
	return err == nil
}

// turn keeps the file small until the end.
func (s *stderr) turn() {
	for s.await() {
		info, err := s.log.f.Stat()
		if err != nil {
			return
		}
		if info.Size() < s.log.max {
			continue
		}
		if s.log.turn() != nil || s.use(s.log.f) != nil {
			s.log.f.Truncate(0) // the disk is full: keep only what comes next
			continue
		}
		if s.changes != nil {
			s.watch()
		}
	}
}

// Close stops watching. The file stays standard error for those that write to it.
func (s *stderr) Close() error {
	close(s.end)
	if s.changes != nil {
		s.changes.Close()
	}
	s.bound.Wait()
	return s.log.Close()
}

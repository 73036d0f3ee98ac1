package service

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vmm/task"
)

// stderr is the file that a guest in the background has for standard error. What
// Go's runtime says at the end must get there without our help, so it is a file and
// no pipe; and whatever else is printed there, by libraries too, must not fill the
// disk. So the file is looked at when it was written to, and turned as a log is.
type stderr struct {
	log   *logFile
	use   func(*os.File) error
	bound task.Group
	end   chan struct{} // closed at the end

	changes *os.File // inotify(7); nil if the host has none left
	fd      int      // of changes
	wd      int      // what it watches
	blind   bool     // it watches nothing
}

// lookAgain is the time between two looks at a file that cannot be watched.
const lookAgain = 10 * time.Second

// KeepStderr makes a file in the guest's folder, which it must have, and hands it to
// use, which makes it standard error; and so the next, when that one is full. It is
// called once.
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

// watch has a Read of changes return when the file that is there now is written to.
func (s *stderr) watch() {
	if s.wd >= 0 {
		unix.InotifyRmWatch(s.fd, uint32(s.wd)) // fails if the file has gone
	}
	var err error
	s.wd, err = unix.InotifyAddWatch(s.fd, fmt.Sprintf("/proc/self/fd/%d", s.log.f.Fd()), unix.IN_MODIFY)
	s.blind = err != nil
}

// await waits until it is time to look, and returns false at the end.
func (s *stderr) await() bool {
	if s.blind {
		select {
		case <-s.end:
			return false
		case <-time.After(lookAgain):
			return true
		}
	}
	var events [1 << 10]byte // which say no more than that there were some
	_, err := s.changes.Read(events[:])
	return err == nil
}

// turn keeps the file small, until the end.
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
			s.log.f.Truncate(0) // the disk is full: then the end of it is kept only
			continue
		}
		if s.changes != nil {
			s.watch()
		}
	}
}

// Close leaves the file as it is to whoever writes to it.
func (s *stderr) Close() error {
	close(s.end)
	if s.changes != nil {
		s.changes.Close()
	}
	s.bound.Wait()
	return s.log.Close()
}

// Package hostfile holds the files and directories of the host that a guest's
// configuration names. A path is resolved once, before the guest has run, and the result
// is kept as a descriptor. If the guest later changes names in a directory that it may
// write to, that does not affect what is opened.
//
// For the same reason no other path may lead through such a directory: a second run of
// the guest would resolve what the guest has put there. A Place records the way of its
// path.
package hostfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Set holds files under the paths that lead to them. One goroutine fills and closes it;
// in between, any goroutine may call its methods. A nil Set holds nothing: its methods
// resolve paths when they are called.
type Set struct {
	files   map[string]held
	parents map[string]held
	mounts  mounts // nil: no Places are needed
}

// held is an O_PATH descriptor, or the reason why there is none.
type held struct {
	fd  int
	err error
}

// New returns an empty Set. Without places its Places are nil, and the kernel resolves
// each path in one step.
func New(places bool) *Set {
	s := &Set{files: map[string]held{}, parents: map[string]held{}}
	if places {
		s.mounts = readMounts()
	}
	return s
}

// Close closes all descriptors. Files opened through them stay open.
func (s *Set) Close() error {
	for _, m := range []map[string]held{s.files, s.parents} {
		for path, h := range m {
			if h.err == nil {
				unix.Close(h.fd)
			}
			delete(m, path)
		}
	}
	return nil
}

// Hold resolves a path, following links this once, and holds the result. If nothing
// exists there, Open returns the error.
func (s *Set) Hold(path string) *Place {
	if s.mounts == nil {
		fd, err := handle(unix.AT_FDCWD, path, 0)
		s.keep(s.files, path, fd, err)
		return nil
	}
	w := look(path, true)
	defer w.close()
	if w.err == nil && w.file < 0 {
		w.err = unix.ENOENT
	}
	s.keep(s.files, path, dup(w.file), w.err)
	return w.place(s.mounts, w.dirs...)
}

// HoldParent holds the directory that contains a path's last name. The name itself is
// not looked up.
func (s *Set) HoldParent(path string) *Place {
	if s.mounts == nil {
		dir, err := openParent(path)
		s.keep(s.parents, path, dir, err)
		return nil
	}
	w := look(path, false)
	defer w.close()
	s.keep(s.parents, path, dup(w.dir()), w.err)
	return w.place(s.mounts, w.dirs...)
}

// HoldRoot holds a directory for this program's own files. If it does not exist,
// HoldRoot makes it, accessible to its user only.
func (s *Set) HoldRoot(path string) {
	err := os.MkdirAll(path, 0o700)
	if err != nil {
		s.keep(s.files, path, -1, errno(err))
		return
	}
	s.Hold(path)
}

// Root returns the Place of a directory in which this program makes files and which it
// may make itself. Nothing is held.
func (s *Set) Root(path string) *Place {
	if s.mounts == nil {
		return nil
	}
	w := look(path, true)
	defer w.close()
	if w.err == nil && w.file >= 0 {
		return w.place(s.mounts, append(w.dirs, w.file)...)
	}
	return w.place(s.mounts, w.dirs...) // the directory will be made in one of these
}

// Look returns the Place of a file that is opened or made now. Nothing is held.
func (s *Set) Look(path string) *Place {
	if s.mounts == nil {
		return nil
	}
	w := look(path, true)
	defer w.close()
	return w.place(s.mounts, w.dirs...)
}

// keep stores fd under path, unless the path has an entry already.
func (s *Set) keep(m map[string]held, path string, fd int, err error) {
	if err == nil && fd < 0 {
		err = unix.EMFILE
	}
	_, again := m[path]
	if (again || err != nil) && fd >= 0 {
		unix.Close(fd)
	}
	if !again {
		m[path] = held{fd, err}
	}
}

// dup duplicates fd. It returns -1 if it cannot.
func dup(fd int) int {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// openParent opens the directory that contains a path's last name.
func openParent(path string) (int, error) {
	parent, name := filepath.Split(path)
	if !isName(name) {
		return -1, unix.EISDIR
	}
	return openat(unix.AT_FDCWD, parent+".", unix.O_PATH|unix.O_DIRECTORY, 0)
}

// Name returns a path by which the kernel finds a descriptor's file, whatever the file's
// names are now. It is for calls that take only a path.
func Name(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Open opens a file or directory that is held. Its error is a *fs.PathError, and path is
// the file's name.
func (s *Set) Open(path string, flags int) (*os.File, error) {
	fd, err := s.OpenFD(path, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenFD is Open for callers that keep the descriptor.
func (s *Set) OpenFD(path string, flags int) (int, error) {
	name, err := s.find(path)
	if err != nil {
		return -1, err
	}
	fd, err := openat(unix.AT_FDCWD, name, flags, 0)
	if s != nil && err == unix.ENOENT {
		err = errNoProc // because what is held exists
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// Stat describes a held file.
func (s *Set) Stat(path string) (fs.FileInfo, error) {
	f, err := s.Open(path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

// OpenRoot is OpenDir for a directory that HoldRoot holds. A nil Set makes it likewise.
func (s *Set) OpenRoot(path string) (*os.Root, error) {
	if s == nil {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
	}
	return s.OpenDir(path)
}

// OpenDir opens a held directory for access to its files.
func (s *Set) OpenDir(path string) (*os.Root, error) {
	name, err := s.find(path)
	if err != nil {
		return nil, err
	}
	return os.OpenRoot(name)
}

// OpenParent returns the directory that contains a path's last name, as an O_PATH
// descriptor, and that name.
func (s *Set) OpenParent(path string) (dir *os.File, name string, err error) {
	var fd int
	if s == nil {
		fd, err = openParent(path)
	} else if h, ok := s.parents[path]; !ok {
		err = unix.EBADF // internal error: it was not held
	} else if err = h.err; err == nil {
		fd, err = openat(h.fd, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return nil, "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Dir(path)), filepath.Base(path), nil
}

// Create opens a file for writing in the held directory. If the file does not exist, it
// is made, accessible to its user only. A link is not followed.
func (s *Set) Create(path string, flags int) (*os.File, error) {
	dir, name, err := s.OpenParent(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// Without O_NONBLOCK the open of a FIFO would block until it has a reader.
	fd, err := openat(int(dir.Fd()), name, flags|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if err == unix.ELOOP {
		err = errLink
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

var errNoProc = errors.New("there is no /proc: mount it")

var errLink = errors.New("is a link: name the file itself")

// find returns a name by which path can be opened.
func (s *Set) find(path string) (string, error) {
	if s == nil {
		return path, nil
	}
	h, ok := s.files[path]
	if !ok {
		h.err = unix.EBADF // internal error: it was not held
	}
	if h.err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: h.err}
	}
	return Name(h.fd), nil
}

func isName(name string) bool { return name != "" && name != "." && name != ".." }

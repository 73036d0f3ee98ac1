package hostfile

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links the kernel follows in a path (path_resolution(7)).
const maxLinks = 40

// A walk resolves a path one name at a time, as the kernel does, and records what the
// path leads through. All descriptors are O_PATH.
type walk struct {
	dirs []int // directories in which a name was looked up, that of the last name last
	file int   // the result; -1 if nothing exists there, or if it was not looked up
	err  error // why the walk stopped early
}

// look walks along a path. With follow the last name is resolved, too; otherwise it is
// not looked up.
func look(path string, follow bool) *walk {
	w := &walk{file: -1}
	parent, last := filepath.Split(path)
	switch {
	case path == "":
		w.err = unix.ENOENT
		return w
	case follow:
		w.file, w.err = w.follow(path)
	case !isName(last):
		w.err = unix.EISDIR
		return w
	default:
		var fd int
		if fd, w.err = w.follow(parent + "."); w.err == nil {
			w.dirs = append(w.dirs, fd)
		}
	}
	return w
}

// dir returns the directory that contains the last name.
func (w *walk) dir() int {
	if len(w.dirs) == 0 {
		return -1
	}
	return w.dirs[len(w.dirs)-1]
}

func (w *walk) close() {
	for _, fd := range append(w.dirs, w.file) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// follow walks from the root or the working directory. If only the last name does not
// exist, it returns -1 and no error.
func (w *walk) follow(path string) (fd int, err error) {
	at, rest, err := start(path)
	if err != nil {
		return -1, err
	}
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if !isName(name) {
			next, err := openat(at, cmpDot(name), unix.O_PATH|unix.O_DIRECTORY, 0)
			unix.Close(at)
			if err != nil {
				return -1, err
			}
			at = next
			continue
		}
		w.dirs = append(w.dirs, at)
		next, text, err := step(at, name)
		switch {
		case err == unix.ENOENT && len(rest) == 0:
			return -1, nil
		case err != nil:
			return -1, err
		case text == "":
			at = next
			continue
		}
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		var more []string
		if next, more, err = start(text); err != nil {
			return -1, err
		}
		if text[0] != '/' { // relative to the directory that contains the link
			unix.Close(next)
			if next, err = unix.FcntlInt(uintptr(at), unix.F_DUPFD_CLOEXEC, 0); err != nil {
				return -1, err
			}
		}
		at, rest = next, slices.Concat(more, rest)
	}
	return at, nil
}

// cmpDot returns the name to open for a component that is no name. The empty component
// before a double or final slash is the directory itself.
func cmpDot(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// start returns where a path begins, and its names.
func start(path string) (fd int, names []string, err error) {
	from := "."
	if strings.HasPrefix(path, "/") {
		from, path = "/", strings.TrimLeft(path, "/")
	}
	if path != "" {
		names = strings.Split(path, "/")
	}
	fd, err = openat(unix.AT_FDCWD, from, unix.O_PATH|unix.O_DIRECTORY, 0)
	return fd, names, err
}

// step looks up a name. It returns what it finds, or the text of a link.
func step(dir int, name string) (fd int, text string, err error) {
	if fd, err = handle(dir, name, unix.O_NOFOLLOW); err != nil {
		return -1, "", err
	}
	var st unix.Stat_t
	if err = fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return fd, "", closeOn(err, fd)
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(dir, &fs) }); err != nil {
		return -1, "", err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC { // it leads to a file, whatever its text says: /dev/fd/3
		fd, err = handle(dir, name, 0)
		return fd, "", err
	}
	if err := mayFollow(dir, &st); err != nil {
		return -1, "", err
	}
	b := make([]byte, unix.PathMax)
	n := 0
	err = again(func() error {
		n, err = unix.Readlinkat(fd, "", b)
		return err
	})
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	return -1, string(b[:max(n, 0)]), err
}

// mayFollow applies the kernel's rule for links in directories such as /tmp
// (fs.protected_symlinks in proc(5)): a link there is followed only by its owner, or if
// it belongs to the directory's owner.
func mayFollow(dir int, link *unix.Stat_t) error {
	var st unix.Stat_t
	if err := fstat(dir, &st); err != nil {
		return err
	}
	const shared = unix.S_ISVTX | unix.S_IWOTH
	if st.Mode&shared == shared && st.Uid != link.Uid && int(link.Uid) != unix.Geteuid() {
		return unix.EACCES
	}
	return nil
}

// handle returns an O_PATH descriptor. It looks for a directory first, which makes the
// kernel mount a file system that is mounted on demand.
func handle(dir int, name string, flags int) (int, error) {
	fd, err := openat(dir, name, flags|unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == unix.ENOTDIR {
		fd, err = openat(dir, name, flags|unix.O_PATH, 0)
	}
	return fd, err
}

// openat opens with O_CLOEXEC.
func openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = again(func() error {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

func fstat(fd int, st *unix.Stat_t) error { return again(func() error { return unix.Fstat(fd, st) }) }

// again calls f until it is not interrupted by a signal.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func closeOn(err error, fd int) error {
	if err != nil {
		unix.Close(fd)
	}
	return err
}

// errno returns the error number in an error of package os.
func errno(err error) error {
	var n syscall.Errno
	if errors.As(err, &n) {
		return n
	}
	return err
}

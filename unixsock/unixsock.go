// Package unixsock makes the listening Unix sockets of this program: only their
// user can connect, and one that a dead process has left is replaced.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"vmm/hostfile"
)

// MaxPath is how long the path of a socket can be, in bytes.
const MaxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// Listener is a listening socket. Its address is a name of this process only.
type Listener struct {
	*net.UnixListener
	dir  *os.File // O_PATH
	name string
	made unix.Stat_t
}

// Listen makes a socket at path, with mode 0600. Closing it removes the file. A
// file that is no socket, or a socket at which somebody listens, is an error,
// which does not say the path.
func Listen(path string) (*Listener, error) {
	if len(path) > MaxPath {
		return nil, fmt.Errorf("the path is longer than %d bytes; use a shorter one", MaxPath)
	}
	dir, name, err := (*hostfile.Set)(nil).OpenParent(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	return ListenIn(dir, name)
}

// ListenIn is Listen for a name in a directory, whose descriptor is the
// listener's from now on. No link is followed.
func ListenIn(dir *os.File, name string) (*Listener, error) {
	l, err := listenIn(dir, name)
	if err != nil {
		dir.Close()
		return nil, err
	}
	return l, nil
}

func listenIn(dir *os.File, name string) (*Listener, error) {
	path := hostfile.Name(int(dir.Fd())) + "/" + name
	if len(path) > MaxPath {
		return nil, fmt.Errorf("the name %s is longer than %d bytes; use a shorter one", name, len(name)-(len(path)-MaxPath))
	}
	// The mode of an unbound socket is the mode of the file that bind makes, so
	// that there is no moment at which others can connect (Linux).
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := private.Listen(context.Background(), "unix", path)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeStale(dir, name); err != nil {
			return nil, err
		}
		l, err = private.Listen(context.Background(), "unix", path)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	if err != nil {
		return nil, err
	}
	u := &Listener{UnixListener: l.(*net.UnixListener), dir: dir, name: name}
	u.SetUnlinkOnClose(false)
	if err := unix.Fstatat(int(dir.Fd()), name, &u.made, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		u.UnixListener.Close()
		return nil, err
	}
	return u, nil
}

// Close ends the listener and removes its file, unless another has taken its
// place. It is called once.
func (l *Listener) Close() error {
	err := l.UnixListener.Close()
	defer l.dir.Close()
	var st unix.Stat_t
	if e := unix.Fstatat(int(l.dir.Fd()), l.name, &st, unix.AT_SYMLINK_NOFOLLOW); e != nil || !same(&st, &l.made) {
		return err
	}
	return errors.Join(err, unix.Unlinkat(int(l.dir.Fd()), l.name, 0))
}

func same(a, b *unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

// errNoSocket is what there is in the way of a socket that is to be made.
var errNoSocket = errors.New("there is a file that is not a socket; remove it or choose another path")

// removeStale removes the socket of a process of this user's that has ended.
func removeStale(dir *os.File, name string) error {
	fd, st, err := open(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return errNoSocket
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("there is a socket of user %d; remove it or choose another path", st.Uid)
	}
	if c, err := net.Dial("unix", hostfile.Name(fd)); err == nil {
		c.Close()
		return errors.New("another process listens there; stop it or choose another path")
	} else if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return unix.Unlinkat(int(dir.Fd()), name, 0)
}

// open returns an O_PATH descriptor of what has a name, a link included, and what
// it is.
func open(dir *os.File, name string) (fd int, st unix.Stat_t, err error) {
	for {
		fd, err = unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return -1, st, err
	}
	if err = unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// Find returns an O_PATH descriptor of a socket beside the listener's. Others may
// have put it there: it is no link, has no second name, and is this user's or
// root's. Who connects does so by the descriptor (hostfile.Name), so that it is the
// one that was looked at.
func (l *Listener) Find(name string) (fd int, err error) {
	fd, st, err := open(l.dir, name)
	if err != nil {
		return -1, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		err = errors.New("not a socket")
	case st.Nlink > 1:
		err = errors.New("a socket with a second name")
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		err = fmt.Errorf("a socket of user %d", st.Uid)
	default:
		return fd, nil
	}
	unix.Close(fd)
	return -1, err
}

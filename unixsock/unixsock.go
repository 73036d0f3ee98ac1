// Package unixsock makes this program's listening Unix sockets: only their user can
// connect, and a socket that a dead process has left is replaced.
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

// MaxPath is the greatest length of a socket's path, in bytes.
const MaxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// Listener is a listening socket. Its address is meaningful only in this process.
type Listener struct {
	*net.UnixListener
	dir  *os.File // O_PATH
	name string
	made unix.Stat_t
}

// Listen makes a socket at path, with mode 0600. Closing it removes the file. It is an
// error if path names a file that is not a socket, or a socket with a listener. The
// error does not contain the path.
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

// ListenIn is Listen for a name in a directory. The listener owns dir from now on. No
// link is followed.
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
	// On Linux the mode of an unbound socket becomes the mode of the file that bind makes,
	// so others can connect at no time.
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

// Close ends the listener and removes its file, unless the file has been replaced. It is
// called once.
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

// errNoSocket says that another file is in the way of the new socket.
var errNoSocket = errors.New("there is a file that is not a socket; remove it or choose another path")

// removeStale removes this user's socket whose process has ended.
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

// open returns an O_PATH descriptor of the file with that name, even a link, and its
// status.
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

// Find returns an O_PATH descriptor of a socket in the listener's directory. Others may
// have put it there, so Find checks that it is not a link, has no second name, and
// belongs to this user or root. A caller that connects does so through the descriptor
// (hostfile.Name), so that it reaches the socket that was checked.
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

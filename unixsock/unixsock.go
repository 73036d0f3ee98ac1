// Package unixsock makes the listening Unix sockets of this program: only their
// user can connect, and one that a dead process has left is replaced.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxPath is how long the path of a socket can be, in bytes.
const MaxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// Listen makes a socket at path, with mode 0600. Closing it removes the file. A
// file that is no socket, or a socket at which somebody listens, is an error,
// which does not say the path.
func Listen(path string) (*net.UnixListener, error) {
	if len(path) > MaxPath {
		return nil, fmt.Errorf("the path is longer than %d bytes; use a shorter one", MaxPath)
	}
	if strings.HasPrefix(path, "@") {
		path = "./" + path // a file, not Linux's abstract name space
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
		if err := removeStale(path); err != nil {
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
	return l.(*net.UnixListener), nil
}

// removeStale removes the socket of a process that has ended.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return errors.New("there is a file that is not a socket; remove it or choose another path")
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return errors.New("another process listens there; stop it or choose another path")
	} else if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

package hostsock

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmm/stream"
)

// conn is a connection to a host program. It implements stream.Conn.
type conn struct {
	h       *Host
	id      uint64
	fd      int            // guarded by Host.mu for Close; -1: closed
	watcher stream.Watcher // guarded by Host.mu
	watched bool           // guarded by Host.mu; start was called
	full    atomic.Bool    // Write waits for room
}

// Events that are always watched, once for each change (edge-triggered).
const interest = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// start tells w of events from now on. The owner may have used c already, or closed it.
// If start fails, w finds that the program has left.
func (c *conn) start(w stream.Watcher) error {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	c.watcher, c.watched = w, true
	err := c.h.watch(unix.EPOLL_CTL_ADD, c.fd, c.id, c.interest())
	if err != nil {
		unix.Shutdown(c.fd, unix.SHUT_RDWR)
	}
	return err
}

// interest returns the events that c is watched for.
func (c *conn) interest() uint32 {
	if c.full.Load() {
		return interest | unix.EPOLLOUT
	}
	return interest
}

// setFull sets whether c is watched for room to write; there may be room already. A
// call just passed on is not watched yet: start does that.
func (c *conn) setFull(full bool) error {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.full.Store(full)
	if !c.watched {
		return nil
	}
	return c.h.watch(unix.EPOLL_CTL_MOD, c.fd, c.id, c.interest())
}

// ready tells w of events. It runs on poll's goroutine.
func (c *conn) ready(w stream.Watcher, events uint32) {
	var e stream.Event
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e |= stream.Readable
	}
	if events&unix.EPOLLHUP != 0 {
		e |= stream.Gone
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 && c.full.Load() {
		e |= stream.Writable
	}
	if e != 0 {
		w.Ready(e)
	}
}

// Read implements stream.Conn.
func (c *conn) Read(bufs [][]byte) (int, error) {
	total := 0
	for len(bufs) > 0 {
		k := min(len(bufs), maxVector)
		n, asked, err := vector(unix.SYS_READV, c.fd, bufs[:k])
		switch {
		case err == unix.EINTR:
			continue
		case total > 0 && (err != nil || n == 0):
			return total, nil // the next call returns the error or end again
		case err == unix.EAGAIN:
			return 0, stream.ErrAgain
		case err != nil:
			return 0, err
		case n == 0 && asked > 0:
			return 0, io.EOF
		}
		if total += n; n < asked {
			break
		}
		bufs = bufs[k:]
	}
	return total, nil
}

// Write implements stream.Conn.
func (c *conn) Write(bufs [][]byte) (int, error) {
	total := 0
	for len(bufs) > 0 {
		k := min(len(bufs), maxVector)
		n, asked, err := vector(unix.SYS_WRITEV, c.fd, bufs[:k])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN, err == nil && n < asked:
			return total + n, c.wait()
		case err != nil:
			return total, err
		}
		total += n
		bufs = bufs[k:]
	}
	if c.full.Load() {
		return total, c.setFull(false)
	}
	return total, nil
}

// wait asks for an event when there is room to write. It returns stream.ErrAgain.
func (c *conn) wait() error {
	if err := c.setFull(true); err != nil {
		return err
	}
	return stream.ErrAgain
}

// Accept implements stream.Conn. The line is written first, so there is room for it,
// unless the program has left.
func (c *conn) Accept(port uint32) { unix.Write(c.fd, fmt.Appendf(nil, "OK %d\n", port)) }

// CloseRead implements stream.Conn.
func (c *conn) CloseRead() { unix.Shutdown(c.fd, unix.SHUT_RD) }

// CloseWrite implements stream.Conn.
func (c *conn) CloseWrite() { unix.Shutdown(c.fd, unix.SHUT_WR) }

// Close implements stream.Conn.
func (c *conn) Close() {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if c.fd >= 0 {
		delete(c.h.conns, c.id)
		unix.Close(c.fd)
		c.fd = -1
	}
}

// adopt makes a conn from a caller's connection, and closes the original.
func (h *Host) adopt(caller *net.UnixConn) (*conn, error) {
	defer caller.Close()
	raw, err := caller.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if e := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	return h.add(fd)
}

package console

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"vmm/task"
	"vmm/unixsock"
)

// PortSpecs lists the specs that OpenPort accepts.
const PortSpecs = "file:PATH, unix:PATH or pty"

// ErrSpec is the error for an invalid spec.
var ErrSpec = errors.New("want " + PortSpecs)

// OpenPort opens the host's end of a guest's port, which is for a program, not for a
// person. Open keeps the last of the unread output; here Write waits until a program
// has taken it.
//
//	file:PATH  output only; the file is created with mode 0600, or Begin empties it
//	unix:PATH  a listening socket with mode 0600, for one client after another
//	pty        a new pseudo-terminal, whose name is Name
//
// owner owns the port's goroutines. connected is called when a peer connects or leaves,
// not concurrently and not after Close. At first no peer is connected, except for a
// file.
func OpenPort(spec string, owner task.Owner, connected func(bool)) (*Console, error) {
	kind, path, hasPath := strings.Cut(spec, ":")
	switch {
	case spec == "pty":
		c, err := openPTY()
		if err == nil {
			connected(false)
			p := &portPTY{pty: c.end.(*pty)}
			c.end = p
			owner.Go(func() { p.watch(connected) })
		}
		return c, err
	case kind == "file" && path != "":
		return openFile(path)
	case kind == "unix" && path != "":
		return openPortSocket(path, owner, connected)
	case hasPath && path == "" && (kind == "file" || kind == "unix"):
		return nil, fmt.Errorf("%q: the path is missing; %w", spec, ErrSpec)
	}
	return nil, fmt.Errorf("%q: %w", spec, ErrSpec)
}

// portPTY is a pseudo-terminal that loses nothing. What pty keeps until the other side
// is opened again is then just the rest of one Write.
type portPTY struct{ *pty }

// watch reports when the other side is opened or closed.
func (p *portPTY) watch(connected func(bool)) {
	tick := time.NewTicker(absent)
	defer tick.Stop()
	for there := false; ; {
		select {
		case <-tick.C:
		case <-p.closed:
			return
		}
		if now := p.present(); now != there {
			there = now
			connected(there)
		}
	}
}

// Write waits until the other side is open.
func (p *portPTY) Write(b []byte) (int, error) {
	tick := time.NewTicker(absent)
	defer tick.Stop()
	for !p.present() {
		select {
		case <-tick.C:
		case <-p.closed:
			return 0, os.ErrClosed
		}
	}
	return p.pty.Write(b)
}

// portSocket is a socket for a program, which loses nothing.
type portSocket struct{ clients }

func openPortSocket(path string, owner task.Owner, connected func(bool)) (*Console, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("unix:%s: %w", path, err)
	}
	s := &portSocket{}
	s.init(l)
	connected(false)
	greet := func(conn net.Conn) bool {
		ok := s.attach(conn)
		if ok {
			connected(true)
		}
		return ok
	}
	left := func() {
		if !s.isClosed() {
			connected(false)
		}
	}
	owner.Go(func() { s.serve(greet, left) })
	return &Console{end: s, name: path}, nil
}

// client waits for a client that takes output; it returns nil once closed.
func (s *portSocket) client() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for (s.conn == nil || s.deaf) && !s.closed {
		s.change.Wait()
	}
	if s.closed {
		return nil
	}
	return s.conn
}

// Write gives p to the client. What a departing client has not taken goes to the next.
// Data that the host's kernel has accepted for a client counts as taken.
func (s *portSocket) Write(p []byte) (n int, err error) {
	for n < len(p) {
		conn := s.client()
		if conn == nil {
			return n, os.ErrClosed
		}
		k, err := conn.Write(p[n:])
		n += k
		if err != nil {
			s.deafen(conn)
		}
	}
	return n, nil
}

package console

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"vmm/unixsock"
)

// PortSpecs lists what OpenPort understands.
const PortSpecs = "file:PATH, unix:PATH or pty"

// ErrSpec is the error of a spec that is none.
var ErrSpec = errors.New("want " + PortSpecs)

// OpenPort opens the host's end of a port of a guest, which is for a program and
// not for a person: where Open keeps the last of what nobody has seen, here Write
// waits until somebody has taken it.
//
//	file:PATH  output only; the file is truncated, or created with mode 0600
//	unix:PATH  a listening socket with mode 0600, for one client after another
//	pty        a new pseudo-terminal, whose name is Name
//
// connected is called when somebody comes or leaves, not concurrently and not
// after Close; at first nobody is there, but with a file.
func OpenPort(spec string, connected func(bool)) (*Console, error) {
	kind, path, hasPath := strings.Cut(spec, ":")
	switch {
	case spec == "pty":
		c, err := openPTY()
		if err == nil {
			connected(false)
			p := &portPTY{pty: c.end.(*pty)}
			c.end = p
			go p.watch(connected)
		}
		return c, err
	case kind == "file" && path != "":
		return openFile(path)
	case kind == "unix" && path != "":
		return openPortSocket(path, connected)
	case hasPath && path == "" && (kind == "file" || kind == "unix"):
		return nil, fmt.Errorf("%q: the path is missing; %w", spec, ErrSpec)
	}
	return nil, fmt.Errorf("%q: %w", spec, ErrSpec)
}

// portPTY is a pseudo-terminal that loses nothing. What pty keeps for the next
// one to open it is then all that one Write had left.
type portPTY struct{ *pty }

// watch tells of those who open and close the other side.
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

// Write waits until somebody has the other side open.
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

// portSocket is a listening Unix socket that loses nothing.
type portSocket struct {
	l         net.Listener
	connected func(bool)

	mu     sync.Mutex
	change sync.Cond // of what follows
	conn   net.Conn  // of the client; nil if none
	deaf   bool      // it takes no more output
	input  []byte    // from clients, for Read; at most inputSize
	closed bool
}

func openPortSocket(path string, connected func(bool)) (*Console, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("unix:%s: %w", path, err)
	}
	s := &portSocket{l: l, connected: connected}
	s.change.L = &s.mu
	connected(false)
	go s.serve()
	return &Console{end: s, name: path}, nil
}

// serve takes the clients, one after the other, and reads what they send: ahead
// of the guest, so that one is seen to leave.
func (s *portSocket) serve() {
	for {
		conn, err := s.l.Accept()
		if err != nil {
			return // closed
		}
		if s.attach(conn) {
			s.connected(true)
			s.receive(conn)
			if s.detach(); !s.isClosed() {
				s.connected(false)
			}
		}
		conn.Close()
	}
}

func (s *portSocket) attach(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conn, s.deaf = conn, false
	s.change.Broadcast()
	return true
}

func (s *portSocket) detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = nil
}

func (s *portSocket) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// receive reads until the client leaves.
func (s *portSocket) receive(conn net.Conn) {
	buf := make([]byte, inputSize)
	for {
		n, err := conn.Read(buf)
		s.mu.Lock()
		for len(s.input)+n > inputSize && !s.closed {
			s.change.Wait()
		}
		s.input = append(s.input, buf[:n]...)
		s.change.Broadcast()
		closed := s.closed
		s.mu.Unlock()
		if err != nil || closed {
			return
		}
	}
}

func (s *portSocket) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.input) == 0 && !s.closed {
		s.change.Wait()
	}
	if s.closed {
		return 0, io.EOF
	}
	n := copy(p, s.input)
	s.input = s.input[:copy(s.input, s.input[n:])]
	s.change.Broadcast()
	return n, nil
}

// client waits for somebody who takes output; nil once closed.
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

// Write gives p to the client, and what one that leaves has not taken to the
// next. What the host's kernel has taken for a client is the client's.
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

// deafen is for a client that takes no more output; receive goes on until it has
// all that was sent.
func (s *portSocket) deafen(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = s.deaf || s.conn == conn
}

// Close ends the client's connection and removes the socket.
func (s *portSocket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.change.Broadcast()
	if s.conn != nil {
		s.conn.Close()
	}
	s.mu.Unlock()
	return s.l.Close()
}

package console

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"vmm/unixsock"
)

// socket is a listening Unix socket. It serves one client at a time, the next
// one waits for the first to leave. A client that does not read stops the
// guest's output, as a terminal does; one that leaves does not.
type socket struct {
	l net.Listener

	mu     sync.Mutex
	change sync.Cond // of what follows
	conn   net.Conn  // of the client; nil if none
	deaf   bool      // it takes no more output
	input  []byte    // from clients, for Read; at most inputSize
	closed bool

	write  sync.Mutex // one Write, or a client's first output, at a time; before mu
	recent recent     // guarded by write
}

// inputSize is read ahead of the guest, so that a client is seen to leave even
// if the guest takes no input.
const inputSize = 4 << 10

func openSocket(path string) (*Console, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("console unix:%s: %w", path, err)
	}
	s := &socket{l: l}
	s.change.L = &s.mu
	go s.serve()
	return &Console{end: s, name: path}, nil
}

// serve takes the clients, one after the other, and reads what they send.
func (s *socket) serve() {
	for {
		conn, err := s.l.Accept()
		if err != nil {
			return // closed
		}
		if s.attach(conn) {
			s.receive(conn)
		}
		s.detach(conn)
	}
}

// attach gives the client what nobody has seen, and then all output.
func (s *socket) attach(conn net.Conn) bool {
	s.write.Lock() // so that no newer output comes before
	defer s.write.Unlock()
	s.mu.Lock()
	s.conn, s.deaf = conn, false
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return false
	}
	n, err := conn.Write(s.recent.b)
	if err != nil {
		s.recent.b = s.recent.b[n:]
		s.deafen()
	} else {
		s.recent = recent{}
	}
	return true // also then: what it has sent counts
}

func (s *socket) deafen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = true
}

// receive reads until the client leaves.
func (s *socket) receive(conn net.Conn) {
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

func (s *socket) detach(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = nil
	conn.Close()
}

func (s *socket) Read(p []byte) (int, error) {
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

// Write keeps what no client takes. It fails only after Close.
func (s *socket) Write(p []byte) (int, error) {
	s.write.Lock()
	defer s.write.Unlock()
	s.mu.Lock()
	conn, deaf, closed := s.conn, s.deaf, s.closed
	s.mu.Unlock()
	if closed {
		return 0, os.ErrClosed
	}
	n := 0
	if conn != nil && !deaf {
		var err error
		if n, err = conn.Write(p); err != nil {
			s.deafen() // receive goes on until it has all that was sent
		}
	}
	s.recent.add(p[n:])
	return len(p), nil
}

// Close ends the client's connection and removes the socket.
func (s *socket) Close() error {
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

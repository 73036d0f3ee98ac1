package console

import (
	"fmt"
	"net"
	"os"
	"sync"

	"vmm/task"
	"vmm/unixsock"
)

// socket is a socket for a person. A client that does not read blocks the guest's
// output, as a terminal does. A client that leaves does not.
type socket struct {
	clients
	write  sync.Mutex // one Write, or a client's first output, at a time; before mu
	recent recent     // guarded by write
}

func openSocket(path string, owner task.Owner) (*Console, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("console unix:%s: %w", path, err)
	}
	s := &socket{}
	s.init(l)
	owner.Go(func() { s.serve(s.greet, func() {}) })
	return &Console{end: s, name: path}, nil
}

// greet gives the client the unread output, and then all new output.
func (s *socket) greet(conn net.Conn) bool {
	s.write.Lock() // so that newer output does not come first
	defer s.write.Unlock()
	if !s.attach(conn) {
		return false
	}
	n, err := conn.Write(s.recent.b)
	if err != nil {
		s.recent.b = s.recent.b[n:]
		s.deafen(conn)
	} else {
		s.recent = recent{}
	}
	return true // even if it has left: what it has sent counts
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
			s.deafen(conn)
		}
	}
	s.recent.add(p[n:])
	return len(p), nil
}

package console

import (
	"io"
	"net"
	"sync"
)

// inputSize bounds what is read ahead of the guest, so that a client's departure is
// noticed even if the guest takes no input.
const inputSize = 4 << 10

// clients is a listening Unix socket that serves one client at a time: the next one
// waits for the first to leave. Output is handled elsewhere.
type clients struct {
	l net.Listener

	mu     sync.Mutex
	change sync.Cond // of everything below
	conn   net.Conn  // the client's; nil if there is none
	deaf   bool      // it takes no more output
	input  []byte    // from clients, for Read; at most inputSize
	closed bool
}

func (c *clients) init(l net.Listener) {
	c.l = l
	c.change.L = &c.mu
}

// serve accepts the clients, one after another, and reads what they send. greet
// attaches a client, and reports whether it could; left is called when one has gone.
func (c *clients) serve(greet func(net.Conn) bool, left func()) {
	for {
		conn, err := c.l.Accept()
		if err != nil {
			return // closed
		}
		if greet(conn) {
			c.receive(conn)
			c.detach()
			left()
		}
		conn.Close()
	}
}

// attach makes conn the client, and reports whether it may.
func (c *clients) attach(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.conn, c.deaf = conn, false
	c.change.Broadcast()
	return true
}

func (c *clients) detach() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
}

func (c *clients) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// deafen marks a client that takes no more output; receive continues until it has
// read everything that was sent.
func (c *clients) deafen(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deaf = c.deaf || c.conn == conn
}

// receive reads until the client leaves.
func (c *clients) receive(conn net.Conn) {
	buf := make([]byte, inputSize)
	for {
		n, err := conn.Read(buf)
		c.mu.Lock()
		for len(c.input)+n > inputSize && !c.closed {
			c.change.Wait()
		}
		c.input = append(c.input, buf[:n]...)
		c.change.Broadcast()
		closed := c.closed
		c.mu.Unlock()
		if err != nil || closed {
			return
		}
	}
}

// Read returns what clients send.
func (c *clients) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.input) == 0 && !c.closed {
		c.change.Wait()
	}
	if c.closed {
		return 0, io.EOF
	}
	n := copy(p, c.input)
	c.input = c.input[:copy(c.input, c.input[n:])]
	c.change.Broadcast()
	return n, nil
}

// Close ends the client's connection and removes the socket.
func (c *clients) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.change.Broadcast()
	if c.conn != nil {
		c.conn.Close()
	}
	c.mu.Unlock()
	return c.l.Close()
}

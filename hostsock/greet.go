package hostsock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"time"

	"vmm/stream"
)

// accept accepts callers until Close.
func (h *Host) accept() {
	for {
		c, err := h.l.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // for example, no descriptors: callers wait, and we must not spin
			h.waits.Warn("vsock: callers must wait", "path", h.path, "err", err)
			select {
			case <-time.After(acceptPause):
			case <-h.done:
				return
			}
			continue
		}
		select {
		case h.greeting <- struct{}{}:
			h.work.Go(func() {
				defer func() { <-h.greeting }()
				h.greet(c)
			})
		default:
			c.Close() // too many callers have not greeted yet
		}
	}
}

// greet reads the port that a caller wants, and passes the call on.
func (h *Host) greet(caller *net.UnixConn) {
	port, ok := h.ask(caller)
	if !ok {
		caller.Close()
		return
	}
	c, err := h.adopt(caller)
	if err != nil {
		h.lost.Warn("vsock: a call is lost", "path", h.path, "port", port, "err", err)
		return
	}
	w := h.guest.Call(c, port)
	if w == nil {
		c.Close()
		return
	}
	if err := c.start(w); err != nil {
		h.lost.Warn("vsock: a call is lost", "path", h.path, "port", port, "err", err)
		w.Ready(stream.Readable | stream.Gone)
	}
}

// ask returns the port from a caller's first line.
func (h *Host) ask(caller *net.UnixConn) (port uint32, ok bool) {
	h.mu.Lock()
	h.greets[caller] = struct{}{}
	closed := h.closed
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.greets, caller)
		h.mu.Unlock()
	}()
	if closed || caller.SetReadDeadline(time.Now().Add(greetingLimit)) != nil {
		return 0, false
	}
	return readGreeting(caller)
}

// maxLine is the longest line: "CONNECT 4294967295\n", and some blanks.
const maxLine = 32

// readGreeting reads one line, and nothing after it: that belongs to the guest.
func readGreeting(r io.Reader) (port uint32, ok bool) {
	var line [maxLine]byte
	for n := range line {
		if _, err := io.ReadFull(r, line[n:n+1]); err != nil {
			return 0, false
		}
		if line[n] == '\n' {
			return parseGreeting(line[:n])
		}
	}
	return 0, false
}

// parseGreeting parses "CONNECT PORT", without the newline.
func parseGreeting(line []byte) (port uint32, ok bool) {
	rest, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte{'\r'}), []byte("CONNECT "))
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 10, 32)
	return uint32(n), err == nil
}

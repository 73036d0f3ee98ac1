package console

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"time"

	"vmm/devices/virtio/virtiotest"
)

// constant is a source that always gives the same byte.
type constant byte

func (c constant) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

// host is the host's end of a port: what a test types, in pieces, and a screen that may
// be blocked.
type host struct {
	mu     sync.Mutex
	change sync.Cond
	typed  bytes.Buffer // guarded by mu, as is all below
	ended  bool         // io.EOF follows typed
	reads  int
	screen bytes.Buffer
	held   bool // Write blocks
	err    error
}

func newHost() *host {
	h := &host{}
	h.change.L = &h.mu
	return h
}

func (h *host) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	h.change.Broadcast()
	for h.typed.Len() == 0 && !h.ended {
		h.change.Wait()
	}
	return h.typed.Read(p)
}

func (h *host) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.held && h.err == nil {
		h.change.Wait()
	}
	if h.err != nil {
		return 0, h.err
	}
	h.screen.Write(p)
	h.change.Broadcast()
	return len(p), nil
}

// set changes the host under its lock.
func (h *host) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.change.Broadcast()
}

func (h *host) kind(s string) { h.set(func() { h.typed.WriteString(s) }) }

func (h *host) end() { h.set(func() { h.ended = true }) }

// wait waits until cond, which is called under the lock, is true.
func (h *host) wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	late := false
	timer := time.AfterFunc(virtiotest.Deadline, func() { h.set(func() { late = true }) })
	defer timer.Stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for !cond() {
		if late {
			t.Fatalf("timeout: %s; the screen has %d bytes", what, h.screen.Len())
		}
		h.change.Wait()
	}
}

// shows waits until the screen shows exactly want.
func (h *host) shows(t testing.TB, want string) {
	t.Helper()
	h.wait(t, "the screen", func() bool { return h.screen.Len() >= len(want) })
	if got := h.screen.String(); got != want {
		t.Fatalf("the screen has %d bytes %.80q, want %d bytes %.80q", len(got), got, len(want), want)
	}
}

var _ io.ReadWriter = (*host)(nil)

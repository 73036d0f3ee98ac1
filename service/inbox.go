package service

import (
	"context"
	"io"
	"sync"
)

// inboxSize bounds what is read ahead of the guest.
const inboxSize = 4 << 10

// inbox lends the console's input to one machine after another. A read from the
// console cannot be undone, so what fill has read waits here until a machine wants
// it: no key is lost when the guest restarts.
type inbox struct {
	mu      sync.Mutex
	changed sync.Cond // of everything below
	data    []byte
	err     error // final, from the console's Read
	wanted  bool  // a machine waits for more than data
	current *session
}

// session is one machine's turn to read.
type session struct{ in *inbox }

func newInbox() *inbox {
	in := new(inbox)
	in.changed.L = &in.mu
	return in
}

// fill reads the console until it ends. It reads only when a machine waits for more,
// that is, when the guest has all earlier input. So a break that the console finds in
// a Read (console.Options.Break) keeps its place in the input.
func (in *inbox) fill(console io.Reader) {
	b := make([]byte, inboxSize)
	for in.awaitWant() {
		n, err := console.Read(b)
		in.mu.Lock()
		in.data = append(in.data, b[:n]...)
		in.err, in.wanted = err, false
		in.changed.Broadcast()
		in.mu.Unlock()
	}
}

// put types p, which does not come from the console, once the guest has taken enough of
// the earlier input. It returns false if ctx is done first; the caller that ends ctx
// must call wake.
func (in *inbox) put(ctx context.Context, p []byte) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.data)+len(p) > inboxSize {
		if ctx.Err() != nil {
			return false
		}
		in.changed.Wait()
	}
	in.data = append(in.data, p...)
	in.changed.Broadcast()
	return true
}

// wake makes waiters check again for conditions outside the inbox.
func (in *inbox) wake() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.changed.Broadcast()
}

// awaitWant returns once a machine waits for input, or false after an error.
func (in *inbox) awaitWant() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for !in.wanted && in.err == nil {
		in.changed.Wait()
	}
	return in.err == nil
}

// open begins a session and ends the one before it.
func (in *inbox) open() *session {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.current = &session{in}
	in.changed.Broadcast()
	return in.current
}

// Read implements io.Reader. It returns io.EOF when the session is over.
func (s *session) Read(p []byte) (int, error) {
	in := s.in
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.current == s && len(in.data) == 0 && in.err == nil {
		in.wanted = true
		in.changed.Broadcast()
		in.changed.Wait()
	}
	switch {
	case in.current != s:
		return 0, io.EOF
	case len(in.data) == 0:
		return 0, in.err
	}
	n := copy(p, in.data)
	in.data = in.data[:copy(in.data, in.data[n:])]
	in.changed.Broadcast()
	return n, nil
}

// Close ends the session; a waiting Read returns.
func (s *session) Close() error {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if s.in.current == s {
		s.in.current = nil
		s.in.changed.Broadcast()
	}
	return nil
}

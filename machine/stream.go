package machine

import (
	"io"
	"sync"

	"vmm/task"
)

// TerminalSize is the size of the terminal that shows a guest's console. It outlives
// machines; its methods may be called from any goroutine.
type TerminalSize struct{ value watched[[2]uint16] }

// Set sets the size of the terminal in characters; 0 is unknown.
func (s *TerminalSize) Set(cols, rows uint16) { s.value.set([2]uint16{cols, rows}) }

func (s *TerminalSize) watch(f func(cols, rows uint16)) (forget func()) {
	return s.value.watch(func(v [2]uint16) { f(v[0], v[1]) })
}

// Stream is the host's end of a Port. It outlives machines: data read for a machine
// that ended before taking it goes to the next one.
type Stream struct {
	in    io.Reader
	out   io.Writer
	there watched[bool]

	mu      sync.Mutex
	changed sync.Cond // signals a change of the fields below
	data    []byte
	err     error // of the last Read; it stays
	reading bool
	current *turn // whose Read gets data
}

// streamBuffer bounds what is read ahead for the guest.
const streamBuffer = 4 << 10

// NewStream returns the host's end of a port: the guest reads from in and writes to
// out; nil means not connected. Write may block. The end counts as connected until
// SetConnected says otherwise. The caller owns in and out, and closes them after the
// last machine.
func NewStream(in io.Reader, out io.Writer) *Stream {
	s := &Stream{in: in, out: out}
	s.changed.L = &s.mu
	s.there.set(true)
	return s
}

// SetConnected says whether a program is connected at the host's end. The guest is
// told: without one, its reads end and its writes wait.
func (s *Stream) SetConnected(connected bool) { s.there.set(connected) }

func (s *Stream) watch(f func(connected bool)) (forget func()) { return s.there.watch(f) }

// turn is the time during which one machine has a Stream: its Read ends when the turn
// of another begins.
type turn struct {
	s     *Stream
	owner task.Owner
}

func (s *Stream) open(owner task.Owner) *turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = &turn{s, owner}
	s.changed.Broadcast()
	return s.current
}

func (t *turn) close() {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.current == t {
		t.s.current = nil
		t.s.changed.Broadcast()
	}
}

// Read implements io.Reader. It returns io.EOF once the turn is over. A read of the
// host's end cannot be cancelled, so it runs on a goroutine of its own.
func (t *turn) Read(p []byte) (int, error) {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.current == t && len(s.data) == 0 && s.err == nil && s.in != nil {
		if !s.reading {
			s.reading = true
			t.owner.Go(s.read)
		}
		s.changed.Wait()
	}
	switch {
	case s.current != t || s.in == nil:
		return 0, io.EOF
	case len(s.data) == 0:
		return 0, s.err
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

func (s *Stream) read() {
	b := make([]byte, streamBuffer)
	n, err := s.in.Read(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data, s.err, s.reading = b[:n], err, false
	s.changed.Broadcast()
}

// watched is a value and the functions called when it changes.
type watched[T comparable] struct {
	mu       sync.Mutex
	value    T
	next     int
	watchers map[int]func(T)
}

func (w *watched[T]) set(v T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.value = v
	for _, f := range w.watchers {
		f(v)
	}
}

// watch calls f for the current value and for each later one, until forget. f must not
// call back.
func (w *watched[T]) watch(f func(T)) (forget func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watchers == nil {
		w.watchers = map[int]func(T){}
	}
	id := w.next
	w.next++
	w.watchers[id] = f
	f(w.value)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.watchers, id)
	}
}

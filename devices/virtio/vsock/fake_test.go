package vsock

import (
	"errors"
	"io"
	"sync"

	"vmm/stream"
)

var errRefused = errors.New("nobody there")

// town is a test host. A pipe is its end of a connection. Everything happens on the
// test's goroutine, or in a transport on the caller's.
type town struct {
	guest stream.Guest

	mu     sync.Mutex
	listen map[uint32]bool // guarded by mu; the ports with a listener
	pipes  []*pipe         // guarded by mu; in the order of their calls
	alive  int             // guarded by mu; pipes that are not closed
}

func (h *town) Serve(g stream.Guest) { h.guest = g }

func (h *town) Dial(port uint32, w stream.Watcher) (stream.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.listen[port] {
		return nil, errRefused
	}
	return h.pipe(w), nil
}

// pipe returns a new pipe. The caller holds mu.
func (h *town) pipe(w stream.Watcher) *pipe {
	p := &pipe{town: h, watcher: w, room: 1 << 20}
	h.pipes = append(h.pipes, p)
	h.alive++
	return p
}

// call calls the guest. It returns nil if the guest refuses.
func (h *town) call(port uint32) *pipe {
	h.mu.Lock()
	p := h.pipe(nil)
	h.mu.Unlock()
	w := h.guest.Call(p, port)
	if w == nil {
		p.Close()
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watcher = w
	return p
}

// pipe is a stream.Conn and, with its other methods, the program behind it.
type pipe struct {
	town *town

	mu       sync.Mutex
	watcher  stream.Watcher
	in       []byte // for the guest; guarded by mu, as is all below
	endless  bool   // there is always more
	eof      bool
	failed   error  // what Read and Write return
	out      []byte // from the guest
	keep     bool   // keep out, not only its length
	length   int
	room     int // how much more Write takes
	full     bool
	accepted uint32
	shutRead bool
	shut     bool // the guest's end
	closed   bool
	calls    int
}

func (p *pipe) Read(bufs [][]byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use()
	if p.failed != nil {
		return 0, p.failed
	}
	for _, b := range bufs {
		k := copy(b, p.in)
		if p.in = p.in[k:]; p.endless {
			k = len(b)
		}
		if n += k; k < len(b) {
			break
		}
	}
	switch {
	case n > 0:
		return n, nil
	case p.eof:
		return 0, io.EOF
	}
	return 0, stream.ErrAgain
}

func (p *pipe) Write(bufs [][]byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use()
	if p.failed != nil {
		return 0, p.failed
	}
	if p.shut {
		panic("a write behind the end")
	}
	for _, b := range bufs {
		k := min(len(b), p.room)
		if p.keep {
			p.out = append(p.out, b[:k]...)
		}
		p.room -= k
		p.length += k
		if n += k; k < len(b) {
			p.full = true
			return n, stream.ErrAgain
		}
	}
	return n, nil
}

// use is called by all methods, to check that none is called after Close.
func (p *pipe) use() {
	if p.closed {
		panic("a call after Close")
	}
	p.calls++
}

func (p *pipe) Accept(port uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use()
	p.accepted = port
}

func (p *pipe) CloseRead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use()
	p.shutRead = true
}

func (p *pipe) CloseWrite() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use()
	p.shut = true
}

func (p *pipe) Close() {
	p.mu.Lock()
	was := p.closed
	p.closed = true
	p.mu.Unlock()
	if !was {
		p.town.mu.Lock()
		p.town.alive--
		p.town.mu.Unlock()
	}
}

// change lets f change the pipe, and reports the change.
func (p *pipe) change(f func(), e stream.Event) {
	p.mu.Lock()
	f()
	w := p.watcher
	p.mu.Unlock()
	if w != nil {
		w.Ready(e)
	}
}

// put writes data for the guest to read.
func (p *pipe) put(b []byte) {
	p.change(func() { p.in = append(p.in, b...) }, stream.Readable)
}

// end ends the direction to the guest.
func (p *pipe) end() { p.change(func() { p.eof = true }, stream.Readable) }

// leave closes the program's end.
func (p *pipe) leave() {
	p.change(func() { p.eof, p.room = true, 0 }, stream.Readable|stream.Gone)
}

// read makes room for n more bytes from the guest.
func (p *pipe) read(n int) {
	p.change(func() { p.room, p.full = p.room+n, false }, stream.Writable)
}

// state returns the state of the pipe.
func (p *pipe) state() (s struct {
	out                    string
	length                 int
	accepted               uint32
	shutRead, shut, closed bool
}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.out, s.length, s.accepted = string(p.out), p.length, p.accepted
	s.shutRead, s.shut, s.closed = p.shutRead, p.shut, p.closed
	return s
}

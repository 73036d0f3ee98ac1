package hostsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/stream"
	"vmm/test/allow"
)

var patience = allow.Time(10 * time.Second)

// guest takes calls, unless it refuses them.
type guest struct {
	calls  chan *end
	refuse bool
	early  func(*end) // called during the call, if not nil
}

// end is a connection as seen by its owner.
type end struct {
	stream.Conn
	port   uint32
	events chan stream.Event
}

func newEnd() *end { return &end{events: make(chan stream.Event, 1000)} }

// Ready implements stream.Watcher.
func (e *end) Ready(ev stream.Event) { e.events <- ev }

// wait waits for an event.
func (e *end) wait(t *testing.T, want stream.Event) {
	t.Helper()
	for timeout := time.After(patience); ; {
		select {
		case ev := <-e.events:
			if ev&want == want {
				return
			}
		case <-timeout:
			t.Fatalf("no event %b", want)
		}
	}
}

// read reads until there is no more data, waiting for at least n bytes.
func (e *end) read(t *testing.T, n int) (all []byte) {
	t.Helper()
	a, b := make([]byte, 3), make([]byte, 1000)
	for len(all) < n {
		k, err := e.Read([][]byte{a, b})
		switch err {
		case nil:
			all = append(all, append(a[:min(k, 3):3], b...)[:k]...)
		case stream.ErrAgain:
			e.wait(t, stream.Readable)
		default:
			t.Fatal(err)
		}
	}
	return all
}

func (g *guest) Call(c stream.Conn, port uint32) stream.Watcher {
	if g.refuse {
		return nil
	}
	e := newEnd()
	e.Conn, e.port = c, port
	if g.early != nil {
		g.early(e)
	}
	g.calls <- e
	return e
}

// start returns a host with a guest.
func start(t *testing.T) (*Host, *guest) { return startWith(t, 0) }

func startWith(t *testing.T, descriptors int) (*Host, *guest) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hs") // a shorter name than t.TempDir's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h, err := New(filepath.Join(dir, "s"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{calls: make(chan *end, 100)}
	h.Most = descriptors
	h.Serve(g)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(h.path); !os.IsNotExist(err) {
			t.Errorf("the socket after the end: %v", err)
		}
	})
	return h, g
}

// dial connects as a program, and writes says.
func dial(t *testing.T, h *Host, says string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: h.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if says == "" { // even an empty write fails if the other end is gone
		return c
	}
	if _, err := io.WriteString(c, says); err != nil {
		t.Fatal(err)
	}
	return c
}

// take returns the guest's end of the next call.
func (g *guest) take(t *testing.T) *end {
	t.Helper()
	select {
	case e := <-g.calls:
		return e
	case <-time.After(patience):
		t.Fatal("no call")
		return nil
	}
}

// TestCall: a greeting, data sent with it, the answer, and the end of both
// directions.
func TestCall(t *testing.T) {
	h, g := start(t)
	c := dial(t, h, "CONNECT 22\nat once")
	e := g.take(t)
	if e.port != 22 {
		t.Errorf("port %d", e.port)
	}
	if got := e.read(t, 7); string(got) != "at once" {
		t.Errorf("%q", got)
	}
	e.Accept(1 << 30)
	if n, err := e.Write([][]byte{[]byte("he"), []byte("llo")}); n != 5 || err != nil {
		t.Error(n, err)
	}
	e.CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "OK 1073741824\nhello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	io.WriteString(c, "more")
	c.CloseWrite()
	if got := e.read(t, 4); string(got) != "more" {
		t.Errorf("%q", got)
	}
	e.wait(t, stream.Readable)
	if n, err := e.Read([][]byte{make([]byte, 10)}); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	e.Close()
	e.Close()
}

// TestBadGreetings: a program with an invalid greeting is rejected.
func TestBadGreetings(t *testing.T) {
	h, g := start(t)
	for _, says := range []string{
		"\n", "GET / HTTP/1.0\r\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT -1\n", "CONNECT 4294967296\n",
		"connect 1\n", "CONNECT 1 2\n", "CONNECT 1" + strings.Repeat(" ", maxLine), strings.Repeat("x", 10_000),
	} {
		c := dial(t, h, "")
		io.WriteString(c, says) // may be cut off
		if b, err := io.ReadAll(c); len(b) != 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%.20q: %q, %v", says, b, err)
		}
	}
	c := dial(t, h, "CONN")
	c.CloseWrite()
	if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
		t.Errorf("half a greeting: %q, %v", b, err)
	}
	for _, says := range []string{"CONNECT 0\n", "CONNECT 4294967295\n", "CONNECT 7 \r\n"} {
		dial(t, h, says)
		g.take(t)
	}
	select {
	case e := <-g.calls:
		t.Errorf("a call to port %d", e.port)
	default:
	}
}

// TestRefused: a call that the guest refuses ends.
func TestRefused(t *testing.T) {
	h, g := start(t)
	g.refuse = true
	c := dial(t, h, "CONNECT 22\n")
	if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// listen listens for the guest's calls as a program does.
func listen(t *testing.T, h *Host, port uint32) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("%s_%d", h.path, port), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connect connects the guest to a program.
func connect(t *testing.T, h *Host) (*end, *net.UnixConn) {
	t.Helper()
	l := listen(t, h, 80)
	e := newEnd()
	var err error
	if e.Conn, err = h.Dial(80, e); err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return e, c
}

// TestDial: the guest calls, and it notices when the program leaves.
func TestDial(t *testing.T) {
	h, _ := start(t)
	e, c := connect(t, h)
	io.WriteString(c, "hello")
	if got := e.read(t, 5); string(got) != "hello" {
		t.Errorf("%q", got)
	}
	e.Write([][]byte{[]byte("and back")})
	b := make([]byte, 8)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "and back" {
		t.Errorf("%q, %v", b, err)
	}
	io.WriteString(c, "last words")
	c.Close()
	e.wait(t, stream.Readable|stream.Gone)
	if got := e.read(t, 10); string(got) != "last words" {
		t.Errorf("%q", got)
	}
	if n, err := e.Read([][]byte{make([]byte, 10)}); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if _, err := e.Write([][]byte{[]byte("x")}); err != unix.EPIPE {
		t.Errorf("a write to nobody: %v", err)
	}
}

func TestNobody(t *testing.T) {
	h, _ := start(t)
	if _, err := h.Dial(80, newEnd()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no such socket: %v", err)
	}
	l := listen(t, h, 81)
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := h.Dial(81, newEnd()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("nobody at the socket: %v", err)
	}
	if n := len(h.all()); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestFull: writes are refused while the program does not read, and there is an event
// when it does. Nothing is lost, however it is split.
func TestFull(t *testing.T) {
	h, _ := start(t)
	e, c := connect(t, h)
	var bufs [][]byte
	for i := range 3 * maxVector {
		bufs = append(bufs, []byte(strings.Repeat(string(rune('a'+i%26)), 1+i*37%999)))
	}
	var sent []byte
	for rounds := 0; ; rounds++ {
		n, err := e.Write(bufs)
		for _, b := range bufs {
			k := min(n, len(b))
			sent, n = append(sent, b[:k]...), n-k
		}
		if err == stream.ErrAgain {
			break
		}
		if err != nil || rounds > 1000 {
			t.Fatal(rounds, err)
		}
	}
	if n, err := e.Write(bufs); n != 0 || err != stream.ErrAgain {
		t.Errorf("full: %d, %v", n, err)
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != string(sent) {
		t.Errorf("%d bytes are not what was sent: %v", len(got), err)
	}
	e.wait(t, stream.Writable)
	if n, err := e.Write([][]byte{[]byte("more")}); n != 4 || err != nil {
		t.Error(n, err)
	}
}

// TestFullEarly: the guest answers a call with more data than fits, before its
// connection is watched. There is still an event, and all data arrives.
func TestFullEarly(t *testing.T) {
	h, g := start(t)
	b := []byte(strings.Repeat("x", 64<<10))
	sent, early := 0, make(chan error, 1)
	g.early = func(e *end) {
		for {
			n, err := e.Write([][]byte{b})
			if sent += n; err != nil {
				early <- err
				return
			}
		}
	}
	c := dial(t, h, "CONNECT 22\n")
	e := g.take(t)
	if err := <-early; err != stream.ErrAgain {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, sent)); err != nil {
		t.Fatal(err)
	}
	e.wait(t, stream.Writable)
	if n, err := e.Write([][]byte{b[:1]}); n != 1 || err != nil {
		t.Error(n, err)
	}
}

// TestLarge: one read fills many buffers.
func TestLarge(t *testing.T) {
	h, _ := start(t)
	e, c := connect(t, h)
	sent := []byte(strings.Repeat("0123456789", 10_000))
	go c.Write(sent)
	var got []byte
	for len(got) < len(sent) {
		var bufs [][]byte
		for range 2*maxVector + 1 {
			bufs = append(bufs, make([]byte, 100))
		}
		n, err := e.Read(bufs)
		if err == stream.ErrAgain {
			e.wait(t, stream.Readable)
		} else if err != nil {
			t.Fatal(err)
		}
		for _, b := range bufs {
			k := min(n, len(b))
			got, n = append(got, b[:k]...), n-k
		}
	}
	if string(got) != string(sent) {
		t.Error("not what was sent")
	}
}

// TestCloseRead: a program learns that the guest no longer reads.
func TestCloseRead(t *testing.T) {
	h, _ := start(t)
	e, c := connect(t, h)
	e.CloseRead()
	if _, err := io.WriteString(c, "x"); !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
	e.Write([][]byte{[]byte("y")})
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Error(err)
	}
}

// TestClose ends everything: connections, and callers that have not greeted yet.
func TestClose(t *testing.T) {
	h, g := start(t)
	silent, called := dial(t, h, "CON"), dial(t, h, "CONNECT 1\n")
	e := g.take(t)
	dialed, c := connect(t, h)
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	for _, c := range []net.Conn{silent, called, c} {
		if b, err := io.ReadAll(c); len(b) != 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%q, %v", b, err)
		}
	}
	e.Close()
	dialed.Close()
	if _, err := h.Dial(80, newEnd()); err == nil {
		t.Error("a call after the end")
	}
}

func TestBadPaths(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		"":                             "the path is empty",
		strings.Repeat("x", maxPath+1): "longer than 96 bytes",
		filepath.Join("/proc", "no", "such", "s"): "no such file or directory",
		"/dev/null": "not a socket",
	} {
		h, err := New(path, nil, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
		if h != nil {
			h.Close()
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
}

func FuzzGreeting(f *testing.F) {
	for _, s := range []string{"CONNECT 22\nrest", "CONNECT 4294967295\r\n", "CONNECT 1", "\n", strings.Repeat("C", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := strings.NewReader(s)
		port, ok := readGreeting(r)
		line, rest, found := strings.Cut(s, "\n")
		want := found && len(line) < maxLine
		if ok && !want {
			t.Fatalf("%q is taken", s)
		}
		if ok {
			var n uint64
			if _, err := fmt.Sscanf(line, "CONNECT %d", &n); err != nil || n != uint64(port) {
				t.Errorf("%q is port %d", s, port)
			}
			if left, _ := io.ReadAll(r); string(left) != rest {
				t.Errorf("%q leaves %q", s, left)
			}
		}
	})
}

// TestMost: callers and connections each get their thirds of the descriptors, and no
// more.
func TestMost(t *testing.T) {
	h, g := startWith(t, 12)
	listen(t, h, 80)
	for i := range 6 {
		c, err := h.Dial(80, newEnd())
		if (err == nil) != (i < 4) {
			t.Errorf("connection %d: %v", i, err)
		}
		if i == 3 && err == nil {
			defer c.Close()
		}
	}
	for range 4 {
		dial(t, h, "CONN") // an incomplete greeting
	}
	c := dial(t, h, "")
	if n, err := c.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("one more: %d, %v", n, err)
	}
	if len(g.calls) != 0 {
		t.Error("a call")
	}
}

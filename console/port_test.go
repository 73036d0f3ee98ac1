package console

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/test/allow"
)

var portPatience = allow.Time(5 * time.Second)

// port is a port under test, with its reports of whether a client is connected.
type port struct {
	*Console
	t     *testing.T
	there chan bool
}

func openTestPort(t *testing.T, spec string) *port {
	t.Helper()
	p := &port{t: t, there: make(chan bool, 16)}
	var err error
	if p.Console, err = OpenPort(spec, nil, func(v bool) { p.there <- v }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func (p *port) connected(want bool) {
	p.t.Helper()
	select {
	case got := <-p.there:
		if got != want {
			p.t.Fatalf("connected: %v", got)
		}
	case <-time.After(portPatience):
		p.t.Fatalf("nobody says connected: %v", want)
	}
}

// write writes on its own goroutine.
func (p *port) write(s string) (done chan error) {
	done = make(chan error, 1)
	go func() {
		n, err := io.WriteString(p, s)
		if err == nil && n != len(s) {
			err = errors.New("a short write")
		}
		done <- err
	}()
	return done
}

func (p *port) wait(done chan error) error {
	p.t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(portPatience):
		p.t.Fatal("Write does not return")
	}
	return nil
}

func dialPort(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(portPatience))
	return c.(*net.UnixConn)
}

func expectPort(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("%q, %v; want %.40q", b[:n], err, want)
	}
}

// TestPortSocket: a write waits for a client, and what a client sent before it left is
// not lost.
func TestPortSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p := openTestPort(t, "unix:"+path)
	p.connected(false)
	done := p.write("for the first")
	c := dialPort(t, path)
	p.connected(true)
	if err := p.wait(done); err != nil {
		t.Fatal(err)
	}
	expectPort(t, c, "for the first")
	io.WriteString(c, "from the first")
	c.Close()
	p.connected(false)
	expectPort(t, p, "from the first")

	done = p.write("for the second")
	select {
	case <-done:
		t.Fatal("Write does not wait for anybody")
	case <-time.After(20 * time.Millisecond):
	}
	c = dialPort(t, path)
	p.connected(true)
	expectPort(t, c, "for the second")
	p.wait(done)

	// A client that stops reading and leaves in the middle.
	big := strings.Repeat("0123456789abcdef", 1<<16)
	done = p.write(big)
	expectPort(t, c, big[:1000])
	c.Close()
	p.connected(false)
	c = dialPort(t, path)
	p.connected(true)
	rest := make([]byte, 4096)
	n, err := c.Read(rest)
	if err != nil || !strings.Contains(big, string(rest[:n])) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	go io.Copy(io.Discard, c)
	if err := p.wait(done); err != nil {
		t.Fatal(err)
	}
}

func TestPortSocketClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	p := openTestPort(t, "unix:"+path)
	done := p.write("never")
	read := make(chan error, 1)
	go func() {
		_, err := p.Read(make([]byte, 1))
		read <- err
	}()
	p.Close()
	if err := p.wait(done); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if err := p.wait(read); err != io.EOF {
		t.Errorf("Read: %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
}

func TestPortPTY(t *testing.T) {
	p := openTestPort(t, "pty")
	p.connected(false)
	done := p.write("output")
	f, err := os.OpenFile(p.Name(), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.connected(true)
	expectPort(t, f, "output")
	if err := p.wait(done); err != nil {
		t.Fatal(err)
	}
	io.WriteString(f, "input")
	expectPort(t, p, "input")
	f.Close()
	p.connected(false)
	done = p.write("waits")
	p.Close()
	if err := p.wait(done); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
}

func TestPortFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	p := openTestPort(t, "file:"+path)
	io.WriteString(p, "output")
	if b, err := os.ReadFile(path); string(b) != "output" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := p.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read: %v", err)
	}
	select {
	case v := <-p.there:
		t.Errorf("connected: %v", v)
	default:
	}
}

func TestPortSpecs(t *testing.T) {
	for _, spec := range []string{"", "stdio", "none", "file", "file:", "unix:", "pty:", "tcp:1"} {
		if _, err := OpenPort(spec, nil, nil); !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), "file:PATH") {
			t.Errorf("%q: %v", spec, err)
		}
	}
	for _, spec := range []string{"file:/nowhere/at/all", "unix:/nowhere/at/all"} {
		if _, err := OpenPort(spec, nil, func(bool) {}); err == nil || errors.Is(err, ErrSpec) {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

// TestSize: the terminal's size, as it changes.
func TestSize(t *testing.T) {
	pty, err := openPTY()
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	f, err := os.OpenFile(pty.Name(), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := Open("stdio", Options{Stdin: f, Stdout: f})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, want := range []unix.Winsize{{Col: 80, Row: 25}, {Col: 132, Row: 50}} {
		if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &want); err != nil {
			t.Fatal(err)
		}
		if cols, rows := c.Size(); cols != want.Col || rows != want.Row {
			t.Errorf("%d columns, %d rows, want %+v", cols, rows, want)
		}
	}
	if cols, rows := pty.Size(); cols != 0 || rows != 0 {
		t.Error("the size of no terminal")
	}
}

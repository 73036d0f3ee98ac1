package console

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmm/test/allow"
)

var patience = allow.Time(10 * time.Second)

// within fails the test if f does not return in time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s does not return", what)
	}
}

// closeUnblocks closes c while Read waits.
func closeUnblocks(t *testing.T, c *Console) {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 10))
		result <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-result:
		if err != io.EOF {
			t.Errorf("Read of a closed console: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Close does not unblock Read")
	}
	if _, err := c.Write([]byte("late")); err == nil {
		t.Error("Write to a closed console succeeds")
	}
}

// expect reads from r until it has seen want, and fails on anything else.
func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	p := make([]byte, len(want))
	within(t, "reading "+want, func() {
		if n, err := io.ReadFull(r, p); string(p[:n]) != want {
			t.Errorf("read %q, %v; want %q", p[:n], err, want)
		}
	})
}

func open(t *testing.T, spec string, o Options) *Console {
	t.Helper()
	c, err := Open(spec, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestSpecs(t *testing.T) {
	dir := t.TempDir()
	for _, spec := range []string{
		"", "tty", "stdio:", "none:x", "pty:1", "file", "file:", "unix", "unix:", "STDIO", "tcp:1234",
		"file:" + dir, "file:" + dir + "/none/x", "unix:" + dir + "/none/x", "unix:" + dir + strings.Repeat("x", 108),
		"unix:" + dir,
	} {
		c, err := Open(spec, Options{})
		if err == nil {
			c.Close()
			t.Errorf("%q is opened", spec)
			continue
		}
		if s := err.Error(); strings.Contains(s, "\n") || !strings.Contains(s, "console") {
			t.Errorf("%q: %s", spec, s)
		}
	}
	if _, err := Open("vnc", Options{}); !strings.Contains(err.Error(), Specs) {
		t.Errorf("the error does not say what is valid: %v", err)
	}
}

func TestNone(t *testing.T) {
	c := open(t, "none", Options{})
	if n, err := c.Write([]byte("abc")); n != 3 || err != nil || !c.None() {
		t.Error(n, err, c.None())
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	c.Restore()
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log:1") // the name includes the colon
	before := ""
	for _, text := range []string{"a long first run", "second"} {
		c := open(t, "file:"+path, Options{})
		if c.Name() != path || c.None() {
			t.Error(c.Name(), c.None())
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		if b, err := os.ReadFile(path); string(b) != before {
			t.Errorf("before it begins: %q, %v; want %q", b, err, before)
		}
		if err := c.Begin(); err != nil {
			t.Error(err)
		}
		before = text
		if _, err := io.WriteString(c, text); err != nil {
			t.Error(err)
		}
		closeUnblocks(t, c)
		if b, err := os.ReadFile(path); string(b) != text {
			t.Errorf("%q, %v; want %q", b, err, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	for _, spec := range []string{"file:" + os.DevNull, "none", "pty"} {
		if err := open(t, spec, Options{}).Begin(); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestStdioPipe(t *testing.T) {
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	c := open(t, "stdio", Options{Stdin: inR, Stdout: outW, Quit: func() { t.Error("quit by a pipe") }})
	inW.WriteString("a\x01x")
	expect(t, c, "a\x01x") // no escapes
	c.Write([]byte("hello"))
	expect(t, outR, "hello")
	inW.Close()
	expect(t, c, "\x04") // end of input, as a person would type it
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("EOF of the pipe: %v", err)
	}
	c.Write([]byte("on")) // the guest continues
	expect(t, outR, "on")
	outR.Close()
	if _, err := c.Write([]byte("gone")); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("writing to nobody: %v", err)
	}
}

func TestStdioClose(t *testing.T) {
	inR, _ := pipe(t)
	_, outW := pipe(t)
	closeUnblocks(t, open(t, "stdio", Options{Stdin: inR, Stdout: outW}))

	c := open(t, "stdio", Options{Stdin: inR, Stdout: outW})
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, 1<<20)) // more than a pipe holds
		wrote <- err
	}()
	c.Close()
	select {
	case err := <-wrote:
		if !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Close does not unblock Write")
	}
}

func TestStdioFiles(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, []byte("typed"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ in, want string }{{in, "typed\x04"}, {os.DevNull, ""}} {
		r, err := os.Open(test.in)
		if err != nil {
			t.Fatal(err)
		}
		w, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		c := open(t, "stdio", Options{Stdin: r, Stdout: w})
		if b, err := io.ReadAll(c); err != nil || string(b) != test.want {
			t.Errorf("%s: %q, %v", test.in, b, err)
		}
		c.Write([]byte("printed"))
		if b, err := os.ReadFile(out); string(b) != "printed" {
			t.Errorf("%q, %v", b, err)
		}
		r.Close()
		w.Close()
	}
	r, w := pipe(t)
	w.Close()
	r.Close()
	if _, err := Open("stdio", Options{Stdin: r, Stdout: w}); err == nil {
		t.Error("closed files are accepted")
	}
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := open(t, "unix:"+path, Options{})
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	c.Write([]byte("boot\n")) // no client yet
	first := dial(t, path)
	expect(t, first, "boot\n")
	c.Write([]byte("login: "))
	expect(t, first, "login: ")
	io.WriteString(first, "root\n")
	expect(t, c, "root\n")

	second := dial(t, path) // waits for the first to leave
	io.WriteString(second, "second\n")
	io.WriteString(first, "exit\n")
	first.Close()
	expect(t, c, "exit\nsecond\n")
	c.Write([]byte("bye"))
	expect(t, second, "bye")
	closeUnblocks(t, c)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("the client is still connected")
	}
}

// TestSocketLeaves: what a client sent before it left is not lost, even if a write by
// the guest has found that it left.
func TestSocketLeaves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := open(t, "unix:"+path, Options{})
	want := ""
	for _, s := range []string{"one\n", "two\n", "three\n"} {
		client := dial(t, path)
		io.WriteString(client, s)
		client.Close()
		c.Write([]byte("x"))
		want += s
	}
	expect(t, c, want)
}

// TestSocketSlow: a client that does not read blocks Write, and Close ends that.
func TestSocketSlow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := open(t, "unix:"+path, Options{})
	client := dial(t, path)
	io.WriteString(client, "x")
	expect(t, c, "x") // it is attached
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	wrote := make(chan error, 2)
	write := func() { _, err := c.Write(want); wrote <- err }
	go write()
	p := make([]byte, len(want))
	within(t, "reading", func() { io.ReadFull(client, p) })
	if err := <-wrote; err != nil || !bytes.Equal(p, want) {
		t.Errorf("output is lost: %v", err)
	}
	go write()
	c.Close()
	select {
	case <-wrote:
	case <-time.After(patience):
		t.Fatal("Close does not unblock Write")
	}
}

func TestSocketStale(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open("unix:"+path, Options{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("in use: %v", err)
	}
	l.SetUnlinkOnClose(false) // as after a crash
	l.Close()
	c := open(t, "unix:"+path, Options{})
	c.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open("unix:"+path, Options{}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file is gone")
	}
}

func TestRecent(t *testing.T) {
	var r recent
	var all []byte
	for i := range 2000 {
		p := bytes.Repeat([]byte{byte(i)}, i%150)
		all = append(all, p...)
		r.add(p)
		if want := all[max(0, len(all)-recentSize):]; !bytes.Equal(r.b, want) {
			t.Fatalf("step %d: %d bytes kept, want the last %d", i, len(r.b), len(want))
		}
	}
	r.add(make([]byte, recentSize+1))
	if len(r.take()) != recentSize || len(r.take()) != 0 {
		t.Error("take")
	}
}

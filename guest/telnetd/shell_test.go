package main

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"vmm/test/allow"
)

// connect returns a connection with a shell.
func dialShell(t *testing.T, argv ...string) *net.TCPConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go serve(l, plain, argv...)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(allow.Time(10 * time.Second)))
	return c.(*net.TCPConn)
}

// TestPlain: what is typed runs on a terminal, and the end of the shell is that
// of the connection.
func TestPlain(t *testing.T) {
	c := dialShell(t, "/bin/sh")
	io.WriteString(c, "tty; echo do''ne; exit\n")
	out, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(out), "/dev/pts/") || !strings.Contains(string(out), "done\r\n") {
		t.Errorf("%v: %q", err, out)
	}
}

// TestTypedAll: a client that will type no more gets what follows.
func TestTypedAll(t *testing.T) {
	c := dialShell(t, "/bin/sh")
	io.WriteString(c, "read x; echo do''ne\nline\n")
	c.CloseWrite()
	out, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(out), "done\r\n") {
		t.Errorf("%v: %q", err, out)
	}
}

func TestNoProgram(t *testing.T) {
	out, err := io.ReadAll(dialShell(t, "/no/such/program"))
	if err != nil || !strings.Contains(string(out), "no such file") {
		t.Errorf("%v: %q", err, out)
	}
}

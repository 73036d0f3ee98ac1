package main

import (
	"fmt"
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

// dialShell returns a connection to a shell.
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

// TestPlain: typed commands run on a terminal, and the connection ends with the shell.
func TestPlain(t *testing.T) {
	c := dialShell(t, "/bin/sh")
	io.WriteString(c, "tty; echo do''ne; exit\n")
	out, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(out), "/dev/pts/") || !strings.Contains(string(out), "done\r\n") {
		t.Errorf("%v: %q", err, out)
	}
}

// TestTypedAll: a client that has closed its input still gets the output.
func TestTypedAll(t *testing.T) {
	c := dialShell(t, "/bin/sh")
	io.WriteString(c, "read x; echo do''ne\nline\n")
	c.CloseWrite()
	out, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(out), "done\r\n") {
		t.Errorf("%v: %q", err, out)
	}
}

// TestBackground: background commands survive the client, also in a shell without job
// control, such as the guest's.
func TestBackground(t *testing.T) {
	c := dialShell(t, "/bin/sh")
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "set +m; { read line; echo got $line >'%[1]s'; } <'%[1]s' & echo shell $$; exit\n", fifo)
	if out, err := io.ReadAll(c); err != nil || !strings.Contains(string(out), "shell ") {
		t.Fatalf("%v: %q", err, out) // the connection ends with the shell
	}
	said := make(chan string)
	go func() {
		os.WriteFile(fifo, []byte("it\n"), 0)
		b, err := os.ReadFile(fifo)
		said <- fmt.Sprint(string(b), err)
	}()
	select {
	case got := <-said:
		if got != "got it\n<nil>" {
			t.Error(got)
		}
	case <-time.After(allow.Time(10 * time.Second)):
		t.Error("nobody is there any more")
	}
}

func TestNoProgram(t *testing.T) {
	out, err := io.ReadAll(dialShell(t, "/no/such/program"))
	if err != nil || !strings.Contains(string(out), "no such file") {
		t.Errorf("%v: %q", err, out)
	}
}

package main

import (
	"io"
	"net"
	"os/exec"
	"sync"

	"github.com/creack/pty"
)

// A protocol is what a connection speaks: it returns what was typed, and where
// to what is to be seen goes.
type protocol func(c net.Conn, resize func(columns, rows uint16)) (io.Reader, io.Writer, error)

// endOfFile is what a terminal takes as the end of its input (Ctrl-D).
const endOfFile = 4

// plain is the protocol that has bytes as they are.
func plain(c net.Conn, _ func(columns, rows uint16)) (io.Reader, io.Writer, error) { return c, c, nil }

// serve gives every connection a process of argv on a terminal of its own, until
// l is closed.
func serve(l net.Listener, p protocol, argv ...string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go session(c, p, argv)
	}
}

// session is one connection. It ends with its process, or when nothing can be
// written any more. A client that has typed all may still read.
func session(c net.Conn, p protocol, argv []string) {
	defer c.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/bin:/bbin:/usr/bin:/sbin:/usr/sbin", "HOME=/root", "TERM=vt100"}
	terminal, err := pty.Start(cmd)
	if err != nil {
		io.WriteString(c, err.Error()+"\r\n")
		return
	}
	defer terminal.Close()
	in, out, err := p(c, func(columns, rows uint16) {
		pty.Setsize(terminal, &pty.Winsize{Cols: columns, Rows: rows})
	})
	if err != nil {
		cmd.Process.Kill()
	}
	var typing sync.WaitGroup
	if err == nil {
		typing.Go(func() {
			if _, err := io.Copy(terminal, in); err != nil {
				cmd.Process.Kill() // the client has gone
			}
			terminal.Write([]byte{endOfFile})
		})
		io.Copy(out, terminal) // until the process has ended
	}
	cmd.Process.Kill() // if the client has gone
	c.Close()
	typing.Wait()
	cmd.Wait()
}

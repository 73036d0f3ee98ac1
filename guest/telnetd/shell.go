package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A protocol sets up a connection: it returns a reader of what was typed, and a writer for
// what is to be shown.
type protocol func(c net.Conn, resize func(columns, rows uint16)) (io.Reader, io.Writer, error)

// endOfFile is the byte that a terminal takes as the end of its input (Ctrl-D).
const endOfFile = 4

// plain is the protocol that passes on bytes unchanged.
func plain(c net.Conn, _ func(columns, rows uint16)) (io.Reader, io.Writer, error) { return c, c, nil }

// serve gives every connection a process of argv on a terminal of its own, until l is
// closed. The processes and their children ignore the hangup of that terminal, so a server
// started in the background outlives the connection. With gosh it would not otherwise:
// gosh leaves it in the foreground process group.
func serve(l net.Listener, p protocol, argv ...string) error {
	signal.Ignore(unix.SIGHUP)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go session(c, p, argv)
	}
}

// session is one connection. It ends with its process, or when nothing can be written any
// more. A client that has finished typing may still read.
func session(c net.Conn, p protocol, argv []string) {
	defer c.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/bin:/bbin:/usr/bin:/sbin:/usr/sbin", "HOME=/root", "TERM=vt100"}
	terminal, err := start(cmd)
	if err != nil {
		io.WriteString(c, err.Error()+"\r\n")
		return
	}
	defer terminal.Close()
	var all sync.WaitGroup
	all.Go(func() {
		cmd.Wait()
		terminal.SetDeadline(time.Now().Add(lastWords))
	})
	in, out, err := p(c, func(columns, rows uint16) { resize(terminal, columns, rows) })
	if err == nil {
		all.Go(func() {
			if _, err := io.Copy(terminal, in); err != nil {
				cmd.Process.Kill() // the client has gone
			}
			terminal.Write([]byte{endOfFile})
		})
		io.Copy(out, terminal)
	}
	cmd.Process.Kill() // if the client has gone
	c.Close()
	all.Wait()
}

// lastWords is how long processes left in the background may still use the terminal.
const lastWords = 100 * time.Millisecond

// start starts cmd on a terminal whose reads and writes can be interrupted.
func start(cmd *exec.Cmd) (*os.File, error) {
	f, err := pty.Start(cmd)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func resize(terminal *os.File, columns, rows uint16) {
	raw, err := terminal.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows})
	})
}

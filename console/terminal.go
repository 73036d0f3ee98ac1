package console

import (
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal is a terminal in raw mode: every key goes to the guest, Ctrl-c and
// Ctrl-z too.
type terminal struct {
	fd int

	mu    sync.Mutex
	found *term.State // how it was; nil as long as it was not changed
	done  bool
	cont  chan os.Signal
}

// newTerminal makes the terminal raw, and again whenever the process continues
// after a stop, as the shell has used the terminal meanwhile.
func newTerminal(fd int) (*terminal, error) {
	t := &terminal{fd: fd, cont: make(chan os.Signal, 1)}
	signal.Notify(t.cont, unix.SIGCONT)
	if err := t.raw(); err != nil {
		t.restore()
		return nil, fmt.Errorf("console: terminal: %w", err)
	}
	go func() {
		for range t.cont {
			t.raw() // if it fails the terminal is gone; Read will say so
		}
	}()
	return t, nil
}

// raw does nothing in the background: changing the terminal there would stop
// the process, and coming to the foreground is a SIGCONT.
func (t *terminal) raw() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done || !foreground(t.fd) {
		return nil
	}
	old, err := term.MakeRaw(t.fd)
	if err != nil {
		return err
	}
	if t.found == nil {
		t.found = old
	}
	// Output stays processed: log lines of the host would otherwise go down the
	// screen like stairs. To the guest's own \r\n it makes no difference.
	tio, err := unix.IoctlGetTermios(t.fd, unix.TCGETS)
	if err != nil {
		return err
	}
	tio.Oflag |= unix.OPOST
	return unix.IoctlSetTermios(t.fd, unix.TCSETS, tio)
}

func (t *terminal) restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return
	}
	t.done = true
	signal.Stop(t.cont)
	close(t.cont)
	if t.found != nil {
		term.Restore(t.fd, t.found)
	}
}

// foreground says whether the process may use the terminal. One that does not
// control the process (as in a test) has no background.
func foreground(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp()
}

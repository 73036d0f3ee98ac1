package console

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"vmm/task"
)

// terminal is a terminal in raw mode: every key goes to the guest, Ctrl-c and
// Ctrl-z too.
type terminal struct {
	fd int

	mu    sync.Mutex
	found *term.State // its state before; nil until it is changed
	done  bool
	cont  chan os.Signal
}

// background is the time between two checks whether a process is still in the
// background: a shell's fg signals nothing but SIGCONT, and that only to stopped
// processes.
const background = 200 * time.Millisecond

// newTerminal makes the terminal raw whenever the process has it: at once; after a stop,
// because the shell has used the terminal in the meantime; and when the process comes
// to the foreground.
func newTerminal(fd int, owner task.Owner) (*terminal, error) {
	t := &terminal{fd: fd, cont: make(chan os.Signal, 1)}
	signal.Notify(t.cont, unix.SIGCONT)
	is, err := t.raw()
	if err != nil {
		t.restore()
		return nil, fmt.Errorf("console: terminal: %w", err)
	}
	owner.Go(func() { t.follow(is) })
	return t, nil
}

// follow makes the terminal raw when needed. is says whether it is raw now. (A process
// that is in the foreground now may not have been there when raw checked.)
func (t *terminal) follow(is bool) {
	for {
		var look <-chan time.Time
		if !is || !foreground(t.fd) {
			look = time.After(background)
		}
		select {
		case _, open := <-t.cont:
			if !open {
				return
			}
		case <-look:
		}
		is, _ = t.raw() // if this fails the terminal is gone; Read reports it
	}
}

// raw makes the terminal raw. In the background, where the terminal is the shell's, it
// does nothing. It reports whether the terminal is raw.
func (t *terminal) raw() (is bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done || !foreground(t.fd) {
		return false, nil
	}
	old, err := term.MakeRaw(t.fd)
	if err != nil {
		return false, err
	}
	if t.found == nil {
		t.found = old
	}
	// Output processing stays on: otherwise the host's log lines would go down the screen
	// like stairs. It makes no difference to the guest's own \r\n.
	tio, err := unix.IoctlGetTermios(t.fd, unix.TCGETS)
	if err != nil {
		return false, err
	}
	tio.Oflag |= unix.OPOST
	err = unix.IoctlSetTermios(t.fd, unix.TCSETS, tio)
	return err == nil, err
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
	if t.found != nil && foreground(t.fd) { // otherwise the shell has done so
		term.Restore(t.fd, t.found)
	}
}

// foreground reports whether the process may use the terminal. With a terminal that does
// not control the process (as in a test) it always may.
func foreground(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp()
}

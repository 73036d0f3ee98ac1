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
	found *term.State // how it was; nil as long as it was not changed
	done  bool
	cont  chan os.Signal
}

// background is how often a process in the background looks whether it still is:
// a shell's fg tells nobody but by SIGCONT, and that only those that were stopped.
const background = 200 * time.Millisecond

// newTerminal makes the terminal raw whenever the process has it: at once, after a
// stop, for the shell has used the terminal meanwhile, and when it comes to the
// foreground.
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

// follow is told whether the terminal is raw. (Who is in the foreground now may
// not have been there when raw looked.)
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
		is, _ = t.raw() // if it fails the terminal is gone; Read will say so
	}
}

// raw does nothing in the background: the terminal is the shell's there. It reports
// whether the terminal is raw.
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
	// Output stays processed: log lines of the host would otherwise go down the
	// screen like stairs. To the guest's own \r\n it makes no difference.
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
	if t.found != nil && foreground(t.fd) { // else the shell has done so
		term.Restore(t.fd, t.found)
	}
}

// foreground says whether the process may use the terminal. One that does not
// control the process (as in a test) has no background.
func foreground(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp()
}

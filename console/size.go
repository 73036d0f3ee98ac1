package console

import "golang.org/x/sys/unix"

// Size returns the size of the terminal, in characters, or zeros if it has no size or
// there is no terminal. SIGWINCH signals changes.
func (c *Console) Size() (cols, rows uint16) {
	if c.term == nil {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(c.term.fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return size.Col, size.Row
}

// Package console is the host's side of a guest's console: a terminal, a file, a
// socket or a pseudo-terminal behind one reader and writer.
package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vmm/task"
)

// Specs lists the specs that Open accepts.
const Specs = "stdio, none, file:PATH, unix:PATH or pty"

// Options are what Open needs besides the spec. All are optional.
type Options struct {
	// Quit is called for Ctrl-a x at a terminal: at once, however much input the guest
	// has not taken yet. It must not block.
	Quit func()
	// Detach is called for Ctrl-a d, likewise. Read then ends after what was typed
	// before. Without Detach the key does nothing.
	Detach func()
	// Break is called for Ctrl-a b, in Read, once everything typed before has been
	// returned.
	Break func()
	// Full is called, in Write, when the disk with the output file is full: output that
	// does not fit is lost until there is room again.
	Full func(error)
	// Stdin and Stdout are used by stdio; nil means the process's own. They are
	// not closed.
	Stdin, Stdout *os.File
	Owner         task.Owner // of its goroutines
}

// Console is an open console. One goroutine may read while another writes. Read returns
// io.EOF once nothing more can come. Write blocks while the other side takes nothing.
// Close unblocks both.
type Console struct {
	end
	name string
	term *terminal // nil if there is none to restore
	old  *os.File  // nil if it is not a file
}

// Open opens the console that spec names:
//
//	stdio      the process's input and output; a terminal becomes raw, and
//	           Ctrl-a is its escape key
//	none       nothing
//	file:PATH  output only; the file is created with mode 0600, or Begin empties it
//	unix:PATH  a listening socket with mode 0600, for one client after another;
//	           a client first gets the last 64 KiB of unread output
//	pty        a new pseudo-terminal, whose name is Name; output as with unix
func Open(spec string, o Options) (*Console, error) {
	kind, path, hasPath := strings.Cut(spec, ":")
	switch {
	case spec == "stdio":
		return openStdio(o)
	case spec == "none":
		return &Console{end: none{}}, nil
	case spec == "pty":
		return openPTY()
	case hasPath && path == "" && (kind == "file" || kind == "unix"):
		return nil, fmt.Errorf("console %q: the path is missing", spec)
	case kind == "file" && hasPath:
		c, err := openFile(path)
		if err == nil {
			f := c.end.(file)
			c.end = &lossy{f, gaps{write: f.Write, full: o.Full}}
		}
		return c, err
	case kind == "unix" && hasPath:
		return openSocket(path, o.Owner)
	}
	return nil, fmt.Errorf("console %q: want %s", spec, Specs)
}

// Name is the path of a file, socket or pseudo-terminal, and otherwise empty.
func (c *Console) Name() string { return c.name }

// None reports whether spec was none: nothing is connected.
func (c *Console) None() bool { return c.end == none{} }

// Terminal reports whether the console is a terminal, with its escape keys.
func (c *Console) Terminal() bool { return c.term != nil }

// Restore puts the terminal back into the state in which it was found. Close does it,
// too. It may be called any number of times, from any goroutine, even during a panic.
// Code that ends the process without Close must call it first.
func (c *Console) Restore() {
	if c.term != nil {
		c.term.restore()
	}
}

// end is the host's end of the console.
type end interface{ io.ReadWriteCloser }

type none struct{}

func (none) Read([]byte) (int, error)    { return 0, io.EOF }
func (none) Write(p []byte) (int, error) { return len(p), nil }
func (none) Close() error                { return nil }

type file struct{ *os.File }

func (file) Read([]byte) (int, error) { return 0, io.EOF }

// lossy is a file for a person, to whom output is lost while the disk is full. A
// program, at a port, must not lose any.
type lossy struct {
	file
	gaps
}

func openFile(path string) (*Console, error) {
	// Without O_NONBLOCK the open of a FIFO would block until it has a reader.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("console: %w: nobody reads this FIFO; start its reader first", err)
	} else if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return &Console{end: file{f}, name: path, old: f}, nil
}

// Begin is called before the first output. Only now is the file emptied: a guest that
// could not start must not empty it, because its name, and so its file, may belong to
// another guest.
func (c *Console) Begin() error {
	if c.old == nil {
		return nil
	}
	info, err := c.old.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	return c.old.Truncate(0)
}

package console

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"vmm/task"
)

// stdio reads and writes descriptors that are shared: a shell may have the same
// terminal, another program the same pipe. So they are not made non-blocking. Instead,
// poll waits for them or for Close.
//
// Writes bypass os.File, which ends the process when the reader of a pipe on descriptor
// 1 has gone (os/signal, "SIGPIPE"). A guest outlives its log.
type stdio struct {
	in, out *os.File // kept, so that the descriptors stay open
	inFD    int
	outFD   int
	closing *os.File // one end of a pipe; hangs up with Close
	closeFD int
	closer  *os.File  // its other end
	term    *terminal // nil, like keys, if the input is not a terminal
	keys    *keyboard
	typed   bool // input that is not a terminal has had bytes
	gaps
}

func openStdio(o Options) (*Console, error) {
	s := &stdio{in: o.Stdin, out: o.Stdout}
	if s.in == nil {
		s.in = os.Stdin
	}
	if s.out == nil {
		s.out = os.Stdout
	}
	s.gaps = gaps{write: s.print, full: o.Full}
	var err error
	if s.inFD, err = descriptor(s.in); err != nil {
		return nil, err
	}
	if s.outFD, err = descriptor(s.out); err != nil {
		return nil, err
	}
	if s.closing, s.closer, err = os.Pipe(); err != nil {
		return nil, err
	}
	s.closeFD, _ = descriptor(s.closing)
	if term.IsTerminal(s.inFD) {
		o.Owner = s.restoring(o.Owner)
		if s.term, err = newTerminal(s.inFD, o.Owner); err != nil {
			s.closing.Close()
			s.closer.Close()
			return nil, err
		}
		s.keys = newKeyboard(o, s.help)
		o.Owner.Go(func() { s.keys.run(s.read) })
	}
	return &Console{end: s, term: s.term}, nil
}

// restoring returns an owner that restores the terminal and then calls owner.
func (s *stdio) restoring(owner task.Owner) task.Owner {
	if owner == nil {
		return nil
	}
	return func(p *task.PanicError) {
		if s.term != nil {
			s.term.restore()
		}
		owner(p)
	}
}

// descriptor is f.Fd without its side effect on the blocking mode.
func descriptor(f *os.File) (fd int, err error) {
	c, err := f.SyscallConn()
	if err == nil {
		err = c.Control(func(v uintptr) { fd = int(v) })
	}
	return fd, err
}

// wait returns once fd has one of events or an error. It returns io.EOF once closed.
func (s *stdio) wait(fd int, events int16) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(s.closeFD)}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("poll", err)
		case fds[1].Revents != 0:
			return io.EOF
		default:
			return nil
		}
	}
}

// endOfInput is Ctrl-d.
const endOfInput = 4

// Read reads the keyboard, or whatever the input is. A serial line has no end of file,
// so the end of a pipe or file becomes the key that a person would press: the guest's
// shell ends, and usually the guest with it. An input that was empty from the start,
// such as /dev/null, presses nothing: there is no user.
func (s *stdio) Read(p []byte) (int, error) {
	if s.keys != nil {
		return s.keys.Read(p)
	}
	n, err := s.read(p)
	if n > 0 {
		s.typed = true
	} else if err == io.EOF && s.typed && len(p) > 0 && !s.closed() {
		s.typed = false
		p[0] = endOfInput
		return 1, nil
	}
	return n, err
}

// awaitForeground returns true once this process is in the terminal's foreground, with
// the terminal raw, or false once closed.
func (s *stdio) awaitForeground() bool {
	for !foreground(s.inFD) {
		if s.closedWithin(background) {
			return false
		}
	}
	s.term.raw() // if this fails the terminal is gone; the next read reports it
	return true
}

// closed reports whether Close was called.
func (s *stdio) closed() bool { return s.closedWithin(0) }

// closedWithin reports whether Close was called, or is called within d. A signal may
// shorten the wait.
func (s *stdio) closedWithin(d time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(s.closeFD)}}
	n, _ := unix.Poll(fds, int(d.Milliseconds()))
	return n > 0
}

// help shows the keys on the terminal.
func (s *stdio) help() {
	fd := s.outFD
	if !term.IsTerminal(fd) {
		fd = s.inFD
	}
	text := helpText
	if s.keys.opts.Detach != nil {
		text += detachText
	}
	unix.Write(fd, []byte(text)) // if this fails there is no user to help
}

// read reads the input. If the terminal has gone, that is the end of the input. In the
// background of a terminal it reads nothing: what is typed there is for the shell, and a
// read would stop the process or, with SIGTTIN ignored, fail with EIO.
func (s *stdio) read(p []byte) (int, error) {
	for {
		if err := s.wait(s.inFD, unix.POLLIN); err != nil {
			return 0, err
		}
		if s.term != nil && !foreground(s.inFD) {
			if !s.awaitForeground() {
				return 0, io.EOF
			}
			continue // it was for another process
		}
		n, err := unix.Read(s.inFD, p)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err == unix.EIO && s.term != nil && !foreground(s.inFD): // it has just gone to the background
		case err == unix.EIO && s.term != nil, err == nil && n == 0:
			return 0, io.EOF
		case err != nil:
			return 0, &os.PathError{Op: "read", Path: s.in.Name(), Err: err}
		default:
			return n, nil
		}
	}
}

// chunk is how much a pipe takes without blocking when poll reports it writable
// (PIPE_BUF), so that a Write is not stuck at Close.
const chunk = 4096

func (s *stdio) print(p []byte) (n int, err error) {
	for n < len(p) {
		if err := s.wait(s.outFD, unix.POLLOUT); err != nil {
			return n, os.ErrClosed
		}
		m, err := unix.Write(s.outFD, p[n:min(len(p), n+chunk)])
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			return n, &os.PathError{Op: "write", Path: s.out.Name(), Err: err}
		default:
			n += m
		}
	}
	return n, nil
}

// Close restores the terminal and unblocks Read and Write. The descriptors stay open. So
// does the pipe end that Read and Write may be polling: the garbage collector closes it.
func (s *stdio) Close() error {
	if s.term != nil {
		s.term.restore()
		s.keys.close()
	}
	s.closer.Close()
	return nil
}

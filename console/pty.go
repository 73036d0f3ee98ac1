package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pty is the master of a pseudo-terminal. Programs (screen, picocom) may open and close
// the other side at any time. Output that comes while it is closed is kept for the next
// program.
type pty struct {
	f      *os.File // non-blocking
	closed chan struct{}
	once   sync.Once

	write  sync.Mutex
	recent recent // guarded by write
}

// absent is the time between two checks of a closed other side: the kernel does not
// notify the master of an open.
const absent = 100 * time.Millisecond

func openPTY() (*Console, error) {
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("console pty: %w", err)
	}
	p := &pty{f: f, closed: make(chan struct{})}
	var number int
	if err := p.control(func(fd int) (err error) {
		number, err = setUp(fd)
		return err
	}); err != nil {
		f.Close()
		return nil, fmt.Errorf("console pty: %w", err)
	}
	return &Console{end: p, name: fmt.Sprint("/dev/pts/", number)}, nil
}

// setUp unlocks the other side, makes it raw and returns its number. It opens and closes
// it once, because only then does poll report it as closed.
func setUp(fd int) (number int, err error) {
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return 0, os.NewSyscallError("unlock", err)
	}
	if number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); err != nil {
		return 0, os.NewSyscallError("number", err)
	}
	peer, err := unix.Open(fmt.Sprint("/dev/pts/", number), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("open", err)
	}
	defer unix.Close(peer)
	tio, err := unix.IoctlGetTermios(peer, unix.TCGETS)
	if err != nil {
		return 0, os.NewSyscallError("tcgetattr", err)
	}
	// cfmakeraw(3)
	tio.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	tio.Oflag &^= unix.OPOST
	tio.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	tio.Cflag = tio.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	return number, os.NewSyscallError("tcsetattr", unix.IoctlSetTermios(peer, unix.TCSETS, tio))
}

// control calls f with the descriptor, or fails if it is closed.
func (p *pty) control(f func(fd int) error) error {
	c, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	if e := c.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

// present reports whether the other side is open.
func (p *pty) present() bool {
	fds := []unix.PollFd{{}}
	err := p.control(func(fd int) error {
		fds[0].Fd = int32(fd)
		_, err := unix.Poll(fds, 0)
		return err
	})
	return err == nil && fds[0].Revents&unix.POLLHUP == 0
}

func (p *pty) Read(b []byte) (int, error) {
	for {
		n, err := p.f.Read(b)
		if n > 0 {
			return n, nil
		}
		if errors.Is(err, os.ErrClosed) || err == nil && len(b) == 0 {
			return 0, io.EOF
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // set by send
			p.f.SetReadDeadline(time.Time{})
		case err != nil && !errors.Is(err, unix.EIO) && err != io.EOF:
			return 0, err
		}
		if !p.await() {
			return 0, io.EOF
		}
	}
}

// await returns true once the other side is open, or false once this side is closed.
// The first to open the other side gets the unread output.
func (p *pty) await() bool {
	tick := time.NewTicker(absent)
	defer tick.Stop()
	for !p.present() {
		select {
		case <-tick.C:
		case <-p.closed:
			return false
		}
	}
	p.write.Lock()
	defer p.write.Unlock()
	p.send(nil)
	return true
}

// Write keeps what is not read. It fails only after Close.
func (p *pty) Write(b []byte) (int, error) {
	p.write.Lock()
	defer p.write.Unlock()
	if err := p.send(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// send writes what was kept and then b. While the other side is open, it waits for it to
// read. What remains when the other side closes is kept.
func (p *pty) send(b []byte) error {
	if kept := p.recent.take(); len(kept) > 0 {
		b = append(kept, b...)
	}
	for len(b) > 0 && p.present() {
		// The deadline is needed because a close of the other side does not end the wait.
		p.f.SetWriteDeadline(time.Now().Add(absent))
		n, err := p.f.Write(b)
		b = b[n:]
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			break // closed, by the other side or by us
		}
	}
	if len(b) > 0 {
		p.recent.add(b)
		// Wake Read, so that it waits for the other side to be opened again.
		p.f.SetReadDeadline(time.Now())
	}
	select {
	case <-p.closed:
		return os.ErrClosed
	default:
		return nil
	}
}

// Close unblocks Read and Write and removes the pseudo-terminal.
func (p *pty) Close() (err error) {
	p.once.Do(func() {
		close(p.closed)
		err = p.f.Close()
	})
	return err
}

package console

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	creack "github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// newTTY returns a terminal, tty, and its keyboard and screen, screen.
func newTTY(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, tty, err := creack.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close(); tty.Close() })
	return screen, tty
}

func termios(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	fd, err := descriptor(f)
	if err != nil {
		t.Fatal(err)
	}
	tio, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *tio
}

func raw(tio unix.Termios) bool {
	return tio.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) == 0 && tio.Iflag&(unix.ICRNL|unix.IXON) == 0
}

func TestTerminal(t *testing.T) {
	screen, tty := newTTY(t)
	found := termios(t, tty)
	var breaks []string
	var got strings.Builder
	quit := make(chan struct{}, 1)
	c := open(t, "stdio", Options{
		Stdin: tty, Stdout: tty,
		Quit:  func() { quit <- struct{}{} },
		Break: func() { breaks = append(breaks, got.String()) },
	})
	if tio := termios(t, tty); !raw(tio) || tio.Oflag&unix.OPOST == 0 {
		t.Errorf("terminal %+v", tio)
	}
	io.WriteString(screen, "ls\r\x03\x01b\x01\x01k\x01z")
	for p := make([]byte, 64); got.Len() < 6; {
		within(t, "Read", func() {
			n, err := c.Read(p)
			if got.Write(p[:n]); err != nil {
				t.Error(err)
			}
		})
	}
	if got.String() != "ls\r\x03\x01k" || len(breaks) != 1 || breaks[0] != "ls\r\x03" {
		t.Errorf("read %q, breaks after %q", got.String(), breaks)
	}
	c.Write([]byte("$ "))
	expect(t, screen, "$ ")
	io.WriteString(screen, "\x01h")
	expect(t, screen, strings.ReplaceAll(helpText, "\r\n", "\r\r\n"))
	io.WriteString(screen, "unread\x01x") // no reader: it quits all the same
	select {
	case <-quit:
	case <-time.After(patience):
		t.Fatal("Ctrl-a x does not quit")
	}
	for range 2 {
		if c.Restore(); termios(t, tty) != found {
			t.Error("the terminal is not restored")
		}
	}
	c.Close()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read after Close: %v", err)
	}
}

func TestTerminalClose(t *testing.T) {
	_, tty := newTTY(t)
	found := termios(t, tty)
	closeUnblocks(t, open(t, "stdio", Options{Stdin: tty, Stdout: tty}))
	if termios(t, tty) != found {
		t.Error("Close does not restore the terminal")
	}
}

// TestTerminalContinued: the shell changed the terminal during a stop.
func TestTerminalContinued(t *testing.T) {
	_, tty := newTTY(t)
	found := termios(t, tty)
	c := open(t, "stdio", Options{Stdin: tty, Stdout: tty})
	fd, _ := descriptor(tty)
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &found); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); !raw(termios(t, tty)); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not raw again after SIGCONT")
		}
	}
	if c.Restore(); termios(t, tty) != found {
		t.Error("the terminal is not restored")
	}
}

// TestHalfTerminal: only the input, or only the output, is a terminal.
func TestHalfTerminal(t *testing.T) {
	t.Run("input", func(t *testing.T) {
		screen, tty := newTTY(t)
		outR, outW := pipe(t)
		c := open(t, "stdio", Options{Stdin: tty, Stdout: outW})
		if !raw(termios(t, tty)) {
			t.Error("not raw")
		}
		io.WriteString(screen, "\x01?a")
		expect(t, c, "a")
		expect(t, screen, strings.ReplaceAll(helpText, "\r\n", "\r\r\n")) // not in the log
		c.Write([]byte("log"))
		expect(t, outR, "log")
	})
	t.Run("output", func(t *testing.T) {
		screen, tty := newTTY(t)
		found := termios(t, tty)
		inR, inW := pipe(t)
		c := open(t, "stdio", Options{Stdin: inR, Stdout: tty})
		if termios(t, tty) != found {
			t.Error("the terminal is changed")
		}
		inW.WriteString("\x01x")
		expect(t, c, "\x01x")
		c.Write([]byte("log"))
		expect(t, screen, "log")
		c.Restore()
	})
}

// TestTerminalGone: a terminal that hangs up ends the input.
func TestTerminalGone(t *testing.T) {
	screen, tty := newTTY(t)
	c := open(t, "stdio", Options{Stdin: tty, Stdout: tty})
	screen.Close()
	within(t, "Read", func() {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
	})
}

func openPeer(t *testing.T, c *Console) *os.File {
	t.Helper()
	f, err := os.OpenFile(c.Name(), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestPTY(t *testing.T) {
	c := open(t, "pty", Options{})
	input := make(chan string)
	go func() {
		defer close(input)
		for p := make([]byte, 64); ; {
			n, err := c.Read(p)
			if err != nil {
				return
			}
			input <- string(p[:n])
		}
	}()
	c.Write([]byte("boot\n")) // no program yet
	for range 3 {             // comes and goes
		peer := openPeer(t, c)
		expect(t, peer, "boot\n")
		if tio := termios(t, peer); !raw(tio) || tio.Oflag&unix.OPOST != 0 {
			t.Errorf("terminal %+v", tio)
		}
		io.WriteString(peer, "ls\r")
		select {
		case s := <-input:
			if s != "ls\r" {
				t.Errorf("read %q", s)
			}
		case <-time.After(patience):
			t.Fatal("no input")
		}
		c.Write([]byte("$ "))
		expect(t, peer, "$ ")
		peer.Close()
		within(t, "Write to nobody", func() {
			c.Write(make([]byte, 2*recentSize))
			c.Write(make([]byte, recentSize-5))
			c.Write([]byte("boot\n"))
		})
		// The next program gets the last output that was kept.
		next := openPeer(t, c)
		expect(t, next, string(make([]byte, recentSize-5))+"boot\n")
		c.Write([]byte("boot\n"))
		expect(t, next, "boot\n")
		next.Close()
		c.Write([]byte("boot\n"))
	}
	c.Close()
	select {
	case <-input:
	case <-time.After(patience):
		t.Fatal("Close does not end Read")
	}
	if _, err := os.Stat(c.Name()); err == nil {
		t.Errorf("%s is still there", c.Name())
	}
}

func TestPTYClose(t *testing.T) {
	closeUnblocks(t, open(t, "pty", Options{}))
	c := open(t, "pty", Options{})
	openPeer(t, c)
	closeUnblocks(t, c)
}

// TestPTYSlow: a program that does not read blocks Write. When it leaves, or the console
// is closed, Write returns.
func TestPTYSlow(t *testing.T) {
	for name, release := range map[string]func(*Console, *os.File){
		"program closes": func(_ *Console, peer *os.File) { peer.Close() },
		"console closes": func(c *Console, _ *os.File) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, "pty", Options{})
			peer := openPeer(t, c)
			wrote := make(chan struct{})
			go func() {
				c.Write(make([]byte, 1<<20))
				close(wrote)
			}()
			expect(t, peer, "\x00")
			release(c, peer)
			select {
			case <-wrote:
			case <-time.After(patience):
				t.Fatal("Write is stuck")
			}
		})
	}
}

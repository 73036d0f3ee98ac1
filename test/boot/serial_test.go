package boot

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/test/boot/pattern"
)

// bulk is how many bytes go over the serial port: 1 MiB, except in the lab. There each
// byte costs some exits of 50 µs, and the processor makes a mistake once in some
// hundred thousand exits. (The device's own tests always move 1 MiB.)
func bulk() int {
	if inLab && !soak {
		return 4 << 10
	}
	return 1 << 20
}

// slow is the deadline for bulk: in the lab 4 KiB takes some seconds.
func slow() time.Duration {
	if bulk() > 4<<10 {
		return 10 * patience
	}
	return patience
}

// TestPrint makes the guest print much at once.
func TestPrint(t *testing.T) {
	need(t, cloud)
	n := bulk()
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "-a", "quiet", "-a", execution(fmt.Sprintf("/tool print %d", n)), "--initrd", tool(t))...)
	}, func(g *guest) {
		g.expect("DATA-BEGIN\r\n")
		g.expectWithin("DATA-END", slow())
		g.status(64)
		out := g.tail(2 << 20)
		_, out, _ = strings.Cut(out, "DATA-BEGIN\r\n")
		out, _, _ = strings.Cut(out, "DATA-END")
		if want := pattern.Bytes(n); out != string(want) {
			fail(false, "%d bytes came, not the %d that were printed", len(out), len(want))
		}
	})
}

// TestPaste pastes the same amount into the guest.
func TestPaste(t *testing.T) {
	need(t, cloud)
	n := bulk()
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(data)
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "-a", "quiet", "-a", execution(fmt.Sprintf("/tool hash %d", n)), "--initrd", tool(t))...)
	}, func(g *guest) {
		g.expect("DATA-READY")
		go bytes.NewReader(data).WriteTo(g.input)
		want := fmt.Sprintf("DATA-HASH %x", sha256.Sum256(data))
		g.expectWithin("DATA-HASH", slow())
		g.status(64)
		if !strings.Contains(g.tail(1000), want) {
			fail(false, "what the guest read is not what was pasted")
		}
	})
}

// TestTerminal acts as a person at a terminal: job control, Ctrl-c, the help and the
// exit. Afterwards the terminal is as before.
func TestTerminal(t *testing.T) {
	need(t, cloud)
	attempt(t, func() *guest { return onTerminal(cloud.args("-m", "256M", "-a", "quiet")...) }, func(g *guest) {
		g.prompt()
		if echoes(g) {
			fail(false, "the terminal is not raw while the guest runs")
		}
		g.send("sleep 1000\n")
		g.expect("sleep 1000")
		time.Sleep(500 * time.Millisecond)
		g.send("\x03") // Ctrl-c goes to the guest
		g.prompt()
		g.do("echo still $((40+2))", "still 42")
		g.send("\x01?")
		g.expect("Ctrl-a x")
		g.send("\x01x")
		g.status(128 + int(syscall.SIGINT))
		if !echoes(g) {
			fail(false, "the terminal is not restored")
		}
	})
}

// TestTerminalRestored: the terminal is restored, whatever ends the guest.
func TestTerminalRestored(t *testing.T) {
	need(t, cloud)
	for name, end := range map[string]func(g *guest){
		"poweroff": func(g *guest) { g.send("poweroff\n"); g.status(0) },
		"panic":    func(g *guest) { g.send("echo c > /proc/sysrq-trigger\n"); g.status(12) },
		"SIGTERM":  func(g *guest) { g.signal(syscall.SIGTERM); g.status(0) },
	} {
		t.Run(name, func(t *testing.T) {
			attempt(t, func() *guest { return onTerminal(cloud.args("-m", "256M", "-a", "quiet")...) }, func(g *guest) {
				g.prompt()
				end(g)
				if !echoes(g) {
					fail(false, "the terminal is not restored")
				}
			})
		})
	}
}

func echoes(g *guest) bool {
	tio, err := unix.IoctlGetTermios(int(g.tty.Fd()), unix.TCGETS)
	if err != nil {
		fail(false, "terminal: %v", err)
	}
	return tio.Lflag&unix.ECHO != 0 && tio.Lflag&unix.ICANON != 0
}

func TestSerialFile(t *testing.T) {
	need(t, cloud)
	path := filepath.Join(t.TempDir(), "console.log")
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "--serial", "file:"+path, "-a", execution("echo to a file"))...)
	}, func(g *guest) {
		g.status(64)
		if b, _ := os.ReadFile(path); !bytes.Contains(b, []byte("to a file")) || !bytes.Contains(b, []byte("Linux version")) {
			fail(false, "the file has %q", b)
		}
	})
}

func TestSerialSocket(t *testing.T) {
	need(t, cloud)
	path := filepath.Join(t.TempDir(), "s")
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "--serial", "unix:"+path, "-a", "quiet")...)
	}, func(g *guest) {
		var client *os.File
		for deadline := time.Now().Add(patience); client == nil; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				fail(true, "no socket after %v", patience)
			}
			client = dial(path)
		}
		defer client.Close()
		g.input.Close()
		g.input = client
		go client.WriteTo(g)
		g.prompt()
		g.do("echo over $((1+1)) ends", "over 2 ends")
		g.send("poweroff\n")
		g.status(0)
	})
}

// dial connects to a Unix socket; it returns nil if no program listens.
func dial(path string) *os.File {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), path)
}

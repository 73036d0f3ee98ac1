package boot

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vmm/test/boot/pattern"
)

// vsockPath returns a path for a guest's socket, which must be short.
func vsockPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// call connects to a guest port. Incoming data is read from r.
func call(path string, port int) (c *net.UnixConn, r *bufio.Reader, err error) {
	c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "CONNECT %d\n", port)
	r = bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "OK ") {
		err = fmt.Errorf("%q", line)
	}
	if err != nil {
		c.Close()
		return nil, nil, fmt.Errorf("port %d: %w", port, err)
	}
	return c, r, nil
}

// there sends data to the guest, closes that direction, and reads the data back.
func there(c *net.UnixConn, r io.Reader, data []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	back, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(back, data) {
		err = fmt.Errorf("%d bytes came back of %d", len(back), len(data))
	}
	return errors.Join(err, <-sent)
}

// calls opens n simultaneous connections to a guest port, all before the first byte.
// size bytes go there and back on each.
func calls(path string, port, n, size int) error {
	conns := make([]*net.UnixConn, n)
	readers := make([]*bufio.Reader, n)
	errs := make([]error, n)
	ringing := make(chan struct{}, 50) // the guest has ten seconds to answer
	each(n, func(i int) {
		ringing <- struct{}{}
		conns[i], readers[i], errs[i] = call(path, port)
		<-ringing
	})
	data := pattern.Bytes(size)
	if errors.Join(errs...) == nil {
		each(n, func(i int) { errs[i] = there(conns[i], readers[i], data) })
	}
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
	return errors.Join(errs...)
}

func each(n int, f func(int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// answer accepts the guest's calls to a port, and echoes what it receives.
func answer(t *testing.T, path string, port int) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("%s_%d", path, port), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
				c.CloseWrite()
				io.Copy(io.Discard, c)
			}()
		}
	}()
}

// must fails the attempt if err is not nil.
func must(what string, err error) {
	if err != nil {
		fail(false, "%s: %v", what, err)
	}
}

// streams is the number of simultaneous connections.
const streams = 1000

// useVsock tries every use of vsock, with the guest's tool at its prompt. The shell's
// port is already taken.
func useVsock(g *guest, path string, do func(command, shows string)) {
	_, _, err := call(path, 99)
	if err == nil {
		fail(false, "somebody listens at a port where nobody does")
	}
	g.send("/tool vsock-echo 7 &\n")
	g.patiently(func() { g.expect("VSOCK-READY") }) // appears before or after the prompt
	do("echo re''ady", "ready")
	must("one call", calls(path, 7, 1, 4<<20))
	must("calls", calls(path, 7, streams, 10_000))
	do("/tool vsock-dial 98 1 1", "connection reset by peer")
	do("/tool vsock-dial 80 1 4194304", "VSOCK-DONE 1\r\n")
	do(fmt.Sprintf("/tool vsock-dial 80 %d 10000", streams), fmt.Sprintf("VSOCK-DONE %d\r\n", streams))
	must("a call after all", calls(path, 7, 1, 10_000))
	c, r, err := call(path, 1023)
	must("shell", err)
	defer c.Close()
	io.WriteString(c, "readlink /proc/self/fd/0; echo in''side; exit\n")
	if out, err := io.ReadAll(r); err != nil || !strings.Contains(string(out), "inside") || !strings.Contains(string(out), "/dev/pts/") {
		fail(false, "shell: %v: %q", err, out)
	}
}

// TestVsock: streams in both directions with a real driver and a real client: many at
// once, half closed, refused, and a shell.
func TestVsock(t *testing.T) {
	need(t, cloud)
	for _, transport := range []string{"pci", "mmio"} {
		t.Run(transport, func(t *testing.T) {
			path := vsockPath(t)
			answer(t, path, 80)
			attempt(t, func() *guest {
				return onPipes(cloud.args("-m", "512M", "-c", "2", "-a", "quiet vmm.shell=1023", "--transport", transport, "--vsock", path, "--initrd", tool(t))...)
			}, func(g *guest) {
				g.prompt()
				useVsock(g, path, g.do)
				g.send("poweroff\n")
				g.status(0)
			})
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("the socket after the end: %v", err)
			}
		})
	}
}

// TestVsockDistro is the same in a Debian, with its driver and its shell. The programs
// come through a shared folder, which both sides write to.
func TestVsockDistro(t *testing.T) {
	need(t)
	dir := distro(t)
	share := t.TempDir()
	for _, name := range []string{"guesttool", "telnetd"} {
		program, err := os.ReadFile(filepath.Join(root, "bin", name))
		if err != nil {
			t.Skipf("%v; 'make boots' makes it", err)
		}
		if err := os.WriteFile(filepath.Join(share, name), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path, disk := vsockPath(t), filepath.Join(t.TempDir(), "root.img")
	answer(t, path, 80)
	attempt(t, func() *guest {
		if err := copySparse(disk, filepath.Join(dir, "root.img")); err != nil {
			t.Fatal(err)
		}
		return onPipes("run", "--kernel", filepath.Join(dir, "vmlinuz"), "--initrd", filepath.Join(dir, "initrd.img"),
			"--cpus", "2", "--memory", "1G", "--disk", disk, "--append", "root=/dev/vda rw",
			"--volume", share+":/mnt", "--vsock", path+",cid=1234")
	}, func(g *guest) {
		const shell = ":~# "
		g.patiently(func() { g.expect("debian login: ") })
		g.send("root\n")
		g.patiently(func() { g.expect(shell) })
		do := func(command, shows string) {
			g.send(command + "\n")
			g.expect("\r\n") // ends the echo of the command
			g.patiently(func() { g.expect(shows) })
			g.patiently(func() { g.expect(shell) })
		}
		do("mount -t virtiofs share0 /mnt && cp /mnt/guesttool /tool && echo from the gue''st > /mnt/reply; ls /mnt", "telnetd")
		if b, err := os.ReadFile(filepath.Join(share, "reply")); string(b) != "from the guest\n" {
			fail(false, "the guest wrote %q, %v", b, err)
		}
		do("/mnt/telnetd vsock:1023 & echo star''ted", "started")
		useVsock(g, path, do)
		g.signal(syscall.SIGTERM)
		g.patiently(func() { g.status(0) })
	})
}

package usernet

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// blocked is both ends of a connection between the guest and a host program.
type blocked struct {
	guest *gonet.TCPConn
	host  *net.TCPConn
}

// connect connects the guest to the host or, if published, the host to the guest.
func connect(t *testing.T, g *guest, published bool) (c blocked) {
	t.Helper()
	if !published {
		hosts := make(chan *net.TCPConn, 1)
		done := make(chan struct{})
		t.Cleanup(func() { close(done) })
		c.guest = g.mustDial(serve(t, "tcp4", func(c *net.TCPConn) { hosts <- c; <-done }))
		c.host = receive(t, "a connection", hosts)
		return c
	}
	l, err := gonet.ListenTCP(g.stack, fullAddress(netip.AddrPortFrom(Guest, 7)), protocol(Guest))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c.host = dialHost(t, "tcp", g.net.Forwarded()[0].Listen).(*net.TCPConn)
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.guest = a.(*gonet.TCPConn)
	return c
}

// fill writes to c until nothing moves.
func fill(c net.Conn) {
	b := make([]byte, 1<<20)
	for {
		c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Write(b); err != nil {
			c.SetWriteDeadline(time.Time{})
			return
		}
	}
}

// abort resets all of the guest's connections.
func (g *guest) abort() {
	for _, e := range g.stack.RegisteredEndpoints() {
		e.Abort()
	}
}

// resets returns a channel that gets a value for each reset segment sent to the
// guest.
func (g *guest) resets() <-chan struct{} {
	c := make(chan struct{}, 100)
	g.sniff(func(b []byte) bool {
		if len(b) >= 54 && b[12] == 8 && b[13] == 0 && b[23] == 6 && header.TCP(b[34:]).Flags()&header.TCPFlagRst != 0 {
			c <- struct{}{}
		}
		return false
	})
	return c
}

// TestGuestReset: a guest's reset reaches the host, whatever is full or ended by
// then.
func TestGuestReset(t *testing.T) {
	for _, published := range []bool{false, true} {
		for name, before := range map[string]func(c blocked){
			"idle":              func(blocked) {},
			"host full":         func(c blocked) { fill(c.guest) },
			"guest full":        func(c blocked) { fill(c.host) },
			"both full":         func(c blocked) { fill(c.host); fill(c.guest) },
			"guest has ended":   func(c blocked) { c.guest.CloseWrite(); c.host.Read(make([]byte, 1)) },
			"full and ended":    func(c blocked) { fill(c.guest); c.guest.CloseWrite() },
			"host has ended":    func(c blocked) { c.host.CloseWrite(); c.guest.Read(make([]byte, 1)) },
			"ended, other full": func(c blocked) { c.host.CloseWrite(); c.guest.Read(make([]byte, 1)); fill(c.guest) },
		} {
			t.Run(name, func(t *testing.T) {
				g := newGuest(t, Config{HostLoopback: true, Forwards: []Forward{{false, netip.MustParseAddrPort("127.0.0.1:0"), 7}}}, allOffloads, nil)
				c := connect(t, g, published)
				before(c)
				g.abort()
				if err := untilReset(c.host); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
					t.Errorf("published: %v: %v", published, err)
				}
			})
		}
	}
}

// TestHostReset is the same in the other direction.
func TestHostReset(t *testing.T) {
	for _, published := range []bool{false, true} {
		for name, before := range map[string]func(c blocked){
			"idle":              func(blocked) {},
			"host full":         func(c blocked) { fill(c.guest) },
			"guest full":        func(c blocked) { fill(c.host) },
			"both full":         func(c blocked) { fill(c.host); fill(c.guest) },
			"guest has ended":   func(c blocked) { c.guest.CloseWrite(); c.host.Read(make([]byte, 1)) },
			"host has ended":    func(c blocked) { c.host.CloseWrite(); c.guest.Read(make([]byte, 1)) },
			"ended, other full": func(c blocked) { c.host.CloseWrite(); c.guest.Read(make([]byte, 1)); fill(c.guest) },
		} {
			t.Run(name, func(t *testing.T) {
				g := newGuest(t, Config{HostLoopback: true, Forwards: []Forward{{false, netip.MustParseAddrPort("127.0.0.1:0"), 7}}}, allOffloads, nil)
				c := connect(t, g, published)
				before(c)
				resets := g.resets()
				c.host.SetLinger(0)
				c.host.Close()
				wait(t, "a reset", resets)
			})
		}
	}
}

// TestCut: when the guest's power fails, a host program that waits for more data sees
// no end of stream. One that has received everything does.
func TestCut(t *testing.T) {
	for _, published := range []bool{false, true} {
		for _, ended := range []bool{false, true} {
			g := newGuest(t, Config{HostLoopback: true, Forwards: []Forward{{false, netip.MustParseAddrPort("127.0.0.1:0"), 7}}}, allOffloads, nil)
			c := connect(t, g, published)
			io.WriteString(c.guest, "half")
			if _, err := io.ReadFull(c.host, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			if ended {
				io.WriteString(c.guest, "more")
				c.guest.CloseWrite()
				eventually(t, "the end is passed on", func() bool {
					info, err := tcpInfo(c.host)
					return err == nil && info.State == unix.BPF_TCP_CLOSE_WAIT
				})
			}
			g.close()
			b, err := io.ReadAll(c.host)
			if want := map[bool]string{true: "more"}[ended]; string(b) != want || (err == nil) != ended {
				t.Errorf("published: %v, ended: %v: %q, %v", published, ended, b, err)
			}
		}
	}
}

// TestKilled: when this process is killed, a program that waits for guest data sees
// no end of stream.
func TestKilled(t *testing.T) {
	const mark = "USERNET_TEST_KILLED"
	if at := os.Getenv(mark); at != "" {
		g := newGuest(t, Config{HostLoopback: true}, 0, nil)
		c := g.mustDial(netip.AddrPortFrom(Gateway, netip.MustParseAddrPort(at).Port()))
		io.WriteString(c, "half")
		time.Sleep(deadline) // until it is killed
		return
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(deadline))
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), mark+"="+l.Addr().String())
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(deadline))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	child.Process.Kill()
	if b, err := io.ReadAll(c); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%q, %v", b, err)
	}
}

func tcpInfo(c *net.TCPConn) (info *unix.TCPInfo, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
	if cerr != nil {
		return nil, cerr
	}
	return info, err
}

package usernet

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"vmm/ethernet"
)

// TestForwardTCP: a host program connects to the guest.
func TestForwardTCP(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(listen, func(t *testing.T) {
			g := newGuest(t, Config{Forwards: []Forward{{false, netip.MustParseAddrPort(listen), 7}}}, allOffloads, nil)
			l, err := gonet.ListenTCP(g.stack, fullAddress(netip.AddrPortFrom(Guest, 7)), protocol(Guest))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			from := make(chan string, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				from <- c.RemoteAddr().String()
				io.Copy(c, c)
				c.(*gonet.TCPConn).CloseWrite()
			}()
			c, err := net.Dial("tcp", g.net.Forwarded()[0].Listen.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(deadline))
			want := pattern(1 << 20)
			go func() {
				c.Write(want)
				c.(*net.TCPConn).CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
			}
			if s := <-from; !strings.HasPrefix(s, "10.0.2.2:") {
				t.Errorf("the guest sees %s", s)
			}
		})
	}
}

// TestForwardNobody: a connection eventually ends if the guest refuses it, is gone,
// or has no driver for its card.
func TestForwardNobody(t *testing.T) {
	for _, test := range []string{"refused", "gone", "no driver"} {
		t.Run(test, func(t *testing.T) {
			g := newGuest(t, Config{Forwards: []Forward{{false, netip.MustParseAddrPort("127.0.0.1:0"), 7}}}, 0, func(s *settings) { s.dialTimeout = 300 * time.Millisecond })
			switch test {
			case "gone":
				g.sniff(func([]byte) bool { return true })
			case "no driver":
				g.net.Stop()
				g.net.Discard()
			}
			c, err := net.Dial("tcp", g.net.Forwarded()[0].Listen.String())
			if err != nil {
				return // already reset
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(deadline))
			if n, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
}

// TestFamily: a forward of all addresses of one family takes none of the other.
func TestFamily(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0", "127.0.0.1:0", "[::ffff:127.0.0.1]:0"} {
		for _, udp := range []bool{false, true} {
			g := newGuest(t, Config{Forwards: []Forward{{udp, netip.MustParseAddrPort(listen), 7}}}, 0, nil)
			at := g.net.Forwarded()[0].Listen
			network, other := "tcp", netip.IPv6Loopback()
			if udp {
				network = "udp"
			}
			if at.Addr().Is6() {
				other = loopback(Guest)
			}
			// The address is free: another program may have it.
			if err := listenAt(network, netip.AddrPortFrom(other, at.Port())); err != nil {
				t.Errorf("%s %s: %v", network, listen, err)
			}
			if err := listenAt(network, netip.AddrPortFrom(loopback(at.Addr()), at.Port())); err == nil {
				t.Errorf("%s %s: its own address is free", network, listen)
			}
		}
	}
}

func listenAt(network string, at netip.AddrPort) error {
	var c io.Closer
	var err error
	if network == "udp" {
		c, err = net.ListenPacket(network, at.String())
	} else {
		c, err = net.Listen(network, at.String())
	}
	if err == nil {
		c.Close()
	}
	return err
}

// TestListenErrors: one line, which says what to do.
func TestListenErrors(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	port := func(a net.Addr) string { return a.String()[strings.LastIndex(a.String(), ":")+1:] }
	for _, test := range []struct {
		f    Forward
		want string
	}{
		{Forward{false, netip.MustParseAddrPort(l.Addr().String()), 1}, "forward tcp 127.0.0.1 port " + port(l.Addr()) + ": in use: choose another"},
		{Forward{true, netip.MustParseAddrPort(u.LocalAddr().String()), 1}, "forward udp 127.0.0.1 port " + port(u.LocalAddr()) + ": in use: choose another"},
		{Forward{false, netip.MustParseAddrPort("192.0.2.200:7"), 1}, "forward tcp 192.0.2.200 port 7: no address of this host: choose one of `ip address`"},
	} {
		n, err := New(Config{Forwards: []Forward{test.f}})
		if err == nil {
			n.Close()
			t.Errorf("%v: no error", test.f)
		} else if err.Error() != test.want {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}

// TestHalfOpen: the connections of a guest that only sends SYNs are bounded.
func TestHalfOpen(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, 0, nil)
	at := serve(t, "tcp4", echo)
	g.sniff(func(b []byte) bool { return len(b) > 23 && b[23] == 6 }) // no segment arrives
	count := func() int {
		g.net.mu.Lock()
		defer g.net.mu.Unlock()
		return g.net.connections
	}
	for i := range 4 * maxHalfOpen {
		g.send(GatewayMAC, 0x800, synPacket(netip.AddrPortFrom(Guest, uint16(1000+i)), at))
		if n := count(); n > maxHalfOpen {
			t.Fatalf("%d connections", n)
		}
	}
	eventually(t, "the bound is reached", func() bool { return count() == maxHalfOpen })
}

// TestClose: nothing is left, whatever was in progress.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	g := newGuest(t, Config{HostLoopback: true, Forwards: []Forward{
		{false, netip.MustParseAddrPort("127.0.0.1:0"), 7}, {true, netip.MustParseAddrPort("127.0.0.1:0"), 7},
	}}, allOffloads, nil)
	t.Run("use", func(t *testing.T) {
		at := serve(t, "tcp4", func(c *net.TCPConn) { io.Copy(io.Discard, c) })
		for range 50 {
			c, err := g.dial(at)
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte("x"))
		}
		g.sniff(func(b []byte) bool { return true })
		for i := range 50 { // half open
			g.send(GatewayMAC, 0x800, synPacket(netip.AddrPortFrom(Guest, uint16(1000+i)), at))
		}
		udp := serveUDP(t, "udp4", same)
		for i := range 50 {
			g.send(GatewayMAC, 0x800, udpPacket(netip.AddrPortFrom(Guest, uint16(1000+i)), udp, []byte("x")))
			g.send(GatewayMAC, 0x800, udpPacket(netip.AddrPortFrom(Guest, uint16(1000+i)), netip.AddrPortFrom(DNS, 53), testQuery(1)))
		}
		c, err := net.Dial("tcp", g.net.Forwarded()[0].Listen.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		g.close()
		if err := g.net.Send(0, &ethernet.Header{}, [][]byte{make([]byte, 60)}); err == nil {
			t.Error("a frame is taken after Close")
		}
	})
	var stacks string
	for end := time.Now().Add(deadline); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b := make([]byte, 1<<20)
			stacks = string(b[:runtime.Stack(b, true)])
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks)
		}
	}
}

// TestStop: a connection survives a stop of the guest.
func TestStop(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
	c := g.mustDial(serve(t, "tcp4", echo))
	for i := range 3 {
		g.net.Stop()
		want := pattern(100_000 + i)
		go c.Write(want)
		g.net.Start(g)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			t.Fatal(err)
		}
	}
}

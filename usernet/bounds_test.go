package usernet

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func (n *Network) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.connections
}

// TestEnds: a connection that both sides have ended is gone, and so is one whose
// guest never acknowledges its end.
func TestEnds(t *testing.T) {
	for _, silent := range []bool{false, true} {
		g := newGuest(t, Config{HostLoopback: true}, allOffloads, func(s *settings) { s.lingerTimeout = 100 * time.Millisecond })
		for range 10 {
			end := make(chan struct{})
			c := g.mustDial(serve(t, "tcp4", func(*net.TCPConn) { <-end }))
			if silent {
				g.sniff(func([]byte) bool { return true })
				close(end)
				// The guest's own end arrives, but no acknowledgement of the
				// network's end.
				c.CloseWrite()
				break
			}
			close(end)
			io.Copy(io.Discard, c)
			c.Close()
		}
		eventually(t, "the connections end", func() bool { return g.net.count() == 0 })
	}
}

// TestConnections: connections beyond the bound are refused, both ways.
func TestConnections(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true, Forwards: []Forward{{false, netip.MustParseAddrPort("127.0.0.1:0"), 7}}}, 0, nil)
	at := serve(t, "tcp4", echo)
	for range maxConnections {
		if !g.net.begin() {
			t.Fatal("too early")
		}
	}
	if _, err := g.dial(at); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	c, err := net.Dial("tcp", g.net.Forwarded()[0].Listen.String())
	if err == nil {
		c.SetDeadline(time.Now().Add(deadline))
		if _, err = c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Error(err)
		}
		c.Close()
	}
	for range maxConnections {
		g.net.end()
	}
	g.mustDial(at)
}

// TestStrangers: packets that claim to come from outside the guest's network get no
// answer.
func TestStrangers(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, 0, nil)
	at := serve(t, "tcp4", echo)
	udp := serveUDP(t, "udp4", same)
	answers := make(chan string, 100)
	g.sniff(func(b []byte) bool {
		if header.Ethernet(b).Type() == header.IPv4ProtocolNumber {
			answers <- header.IPv4(b[14:]).DestinationAddress().String()
		} else {
			answers <- "a question"
		}
		return false
	})
	for _, from := range []string{"192.0.2.9:1", "10.0.2.2:1", "10.0.2.3:1", "127.0.0.1:1", "0.0.0.0:1", "255.255.255.255:1", "224.0.0.1:1"} {
		from := netip.MustParseAddrPort(from)
		g.send(GatewayMAC, 0x800, synPacket(from, at))
		g.send(GatewayMAC, 0x800, udpPacket(from, udp, []byte("x")))
		g.send(GatewayMAC, 0x800, udpPacket(from, netip.AddrPortFrom(DNS, 53), testQuery(1)))
	}
	g.sniffed(t, answers)
}

// sniffed checks that the guest's own exchange is the only one that gets an answer.
func (g *guest) sniffed(t *testing.T, answers <-chan string) {
	t.Helper()
	c := g.dialUDP(serveUDP(t, "udp4", same))
	for { // until the guest's own exchange is answered
		c.Write([]byte("x"))
		switch a := receive(t, "the guest's answer", answers); a {
		case Guest.String():
			return
		case "a question": // ARP, query or answer
		default:
			t.Errorf("an answer for %s", a)
		}
	}
}

// TestGuestGone: the network does not wait for a guest that ends its direction and
// then resets.
func TestGuestGone(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
	errs := make(chan error, 1)
	c := g.mustDial(serve(t, "tcp4", func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		if err == nil { // the guest's end; the reset follows
			err = untilReset(c)
		}
		errs <- err
	}))
	c.CloseWrite()
	c.Close()
	eventually(t, "the guest's end", func() bool { return g.net.count() == 1 })
	for _, e := range g.stack.RegisteredEndpoints() {
		e.Abort()
	}
	if err := receive(t, "a reset", errs); !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
}

// untilReset waits until the other side resets a connection that it has ended.
func untilReset(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var soErr int
		raw.Control(func(fd uintptr) { soErr, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) })
		if soErr != 0 {
			return unix.Errno(soErr)
		}
	}
	return errors.New("timeout")
}

// TestWithin: the bounds add up to no more than they are given.
func TestWithin(t *testing.T) {
	for _, n := range []int{64, 100, 1000, MaxDescriptors - 1, MaxDescriptors, 0, 1 << 30} {
		b := within(n)
		sum := b.connections + b.forwarded + b.mappings + b.queries + b.echoes
		if n > 0 && sum > n || min(b.connections, b.forwarded, b.mappings, b.queries, b.echoes) < 1 || (n == 0 || n > MaxDescriptors) && sum != MaxDescriptors {
			t.Errorf("within %d: %+v", n, b)
		}
	}
	g := newGuest(t, Config{HostLoopback: true, Descriptors: 64}, 0, nil)
	at := serve(t, "tcp4", echo)
	for range within(64).connections {
		g.mustDial(at)
	}
	if _, err := g.dial(at); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("one more: %v", err)
	}
}

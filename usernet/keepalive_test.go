package usernet

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// idles returns, for each host side of a connection, the seconds of silence before it
// is probed; 0 if it is not.
func (n *Network) idles(t *testing.T) (list []int) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.sockets {
		c, ok := s.(*net.TCPConn)
		if !ok {
			continue
		}
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			on, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			idle, _ := unix.GetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_KEEPIDLE)
			list = append(list, on*idle)
		})
	}
	return list
}

// TestKeepalive: the host's side is probed as the guest probes. If the guest does
// not, it is probed only as a NAT may.
func TestKeepalive(t *testing.T) {
	for _, published := range []bool{false, true} {
		for _, last := range []string{"guest", "host"} { // which side spoke last
			t.Run(fmt.Sprint(last, published), func(t *testing.T) {
				t.Parallel()
				g := newGuest(t, Config{HostLoopback: true, Forwards: []Forward{{false, netip.MustParseAddrPort("127.0.0.1:0"), 7}}}, allOffloads, nil)
				c := connect(t, g, published)
				io.WriteString(c.guest, "hello")
				io.ReadFull(c.host, make([]byte, 5))
				if last == "host" {
					io.WriteString(c.host, "hello")
					io.ReadFull(c.guest, make([]byte, 5))
				}
				if got := fmt.Sprint(g.net.idles(t)); got != "[7440]" {
					t.Errorf("without keepalive: %s", got)
				}
				idle, interval := tcpip.KeepaliveIdleOption(time.Second), tcpip.KeepaliveIntervalOption(time.Second)
				for _, e := range g.stack.RegisteredEndpoints() {
					if ep, ok := e.(*tcp.Endpoint); ok && tcp.EndpointState(ep.State()) == tcp.StateEstablished {
						g.check(ep.SetSockOpt(&idle))
						g.check(ep.SetSockOpt(&interval))
						ep.SocketOptions().SetKeepAlive(true)
					}
				}
				eventually(t, "probes are passed on", func() bool { return fmt.Sprint(g.net.idles(t)) == "[1]" })
			})
		}
	}
}

// TestProbes: which segments are probes, and which are not.
func TestProbes(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	host := dialHost(t, "tcp", l.Addr().(*net.TCPAddr).AddrPort()).(*net.TCPConn)
	const ack = header.TCPFlagAck
	type segment struct {
		seq   uint32
		size  int
		flags header.TCPFlags
		after time.Duration
	}
	start := segment{0xffff_fff0, 0x20, ack, 0} // up to 0x10
	for name, test := range map[string]struct {
		full     bool
		segments []segment
		idle     time.Duration
	}{
		"a probe":               {false, []segment{start, {0xf, 0, ack, 90 * time.Second}}, 90 * time.Second},
		"with a byte":           {false, []segment{start, {0xf, 1, ack, 90 * time.Second}}, 90 * time.Second},
		"the second one":        {false, []segment{start, {0xf, 0, ack, 90 * time.Second}, {0xf, 0, ack, 10 * time.Second}}, 10 * time.Second},
		"jitter":                {false, []segment{start, {0xf, 0, ack, 90 * time.Second}, {0xf, 0, ack, 91 * time.Second}}, 90 * time.Second},
		"the first segment":     {false, []segment{{0xf, 0, ack, 90 * time.Second}}, 0},
		"an answer":             {false, []segment{start, {0x10, 0, ack, 90 * time.Second}, {0x10, 0, ack, 90 * time.Second}}, 0},
		"sent again":            {false, []segment{start, {0xf, 1, ack, 300 * time.Millisecond}}, 0},
		"sent again, more":      {false, []segment{start, {0xf, 2, ack, 90 * time.Second}}, 0},
		"more":                  {false, []segment{start, {0x10, 5, ack, 90 * time.Second}}, 0},
		"the end":               {false, []segment{start, {0xf, 0, ack | header.TCPFlagFin, 90 * time.Second}}, 0},
		"it asks for room":      {true, []segment{start, {0xf, 0, ack, 90 * time.Second}}, 0},
		"a length that is none": {false, []segment{start, {0x10, -40, ack, 90 * time.Second}, {0xf, 0, ack, 90 * time.Second}}, 90 * time.Second},
	} {
		c := &keepalive{g: &guestConn{}, host: host}
		c.g.writing.Store(test.full)
		now := time.Hour
		for _, s := range test.segments {
			now += s.after
			c.segment(now, s.seq, s.size, s.flags)
		}
		if c.idle != test.idle {
			t.Errorf("%s: %v, want %v", name, c.idle, test.idle)
		}
	}
}

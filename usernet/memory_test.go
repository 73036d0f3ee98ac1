package usernet

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// TestHostMemory: the more connections there are, the less the host's kernel holds
// for each, whichever side opened it.
func TestHostMemory(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true, Forwards: []Forward{{false, netip.MustParseAddrPort("127.0.0.1:0"), 7}}}, 0, nil)
	at := serve(t, "tcp4", echo)
	l, err := gonet.ListenTCP(g.stack, fullAddress(netip.AddrPortFrom(Guest, 7)), protocol(Guest))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct{ others, most int }{
		{0, 0},
		{fewConnections, 2 * middleHostBuffer},
		{manyConnections, 2 * smallHostBuffer},
	} {
		for range test.others {
			if !g.net.begin() {
				t.Fatal("too early")
			}
		}
		for what, open := range map[string]func(){
			"of the guest's": func() { g.mustDial(at) },
			"to the guest": func() {
				c, err := net.Dial("tcp", g.net.Forwarded()[0].Listen.String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
			},
		} {
			before := g.net.connected()
			open()
			eventually(t, "its buffers", func() bool {
				for c := range g.net.connected() {
					if before[c] {
						continue
					}
					send, receive := buffersOf(t, c)
					return test.most == 0 && send > 0 && receive > 2*smallHostBuffer || test.most > 0 && send <= test.most && receive <= test.most
				}
				return false
			})
			if t.Failed() {
				t.Fatalf("%s, beside %d others", what, test.others)
			}
		}
		for range test.others {
			g.net.end()
		}
	}
}

// connected returns the host's ends of connections.
func (n *Network) connected() map[*net.TCPConn]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := map[*net.TCPConn]bool{}
	for s := range n.sockets {
		if c, ok := s.(*net.TCPConn); ok {
			all[c] = true
		}
	}
	return all
}

// buffersOf returns the kernel's buffer sizes, in bytes as it counts them.
func buffersOf(t *testing.T, c *net.TCPConn) (send, receive int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		send, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
		receive, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	})
	return send, receive
}

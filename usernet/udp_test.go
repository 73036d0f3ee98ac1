package usernet

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// serveUDP answers datagrams on the host's loopback, and returns its address as the
// guest sees it.
func serveUDP(t testing.TB, network string, f func([]byte) []byte) netip.AddrPort {
	t.Helper()
	address, gateway := "127.0.0.1:0", Gateway
	if network == "udp6" {
		address, gateway = "[::1]:0", Gateway6
	}
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 65535)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if answer := f(b[:n]); answer != nil {
				c.WriteTo(answer, from)
			}
		}
	}()
	return netip.AddrPortFrom(gateway, c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
}

func same(b []byte) []byte { return b }

// TestUDP: datagrams come back, even those that do not fit a frame.
func TestUDP(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
			c := g.dialUDP(serveUDP(t, network, same))
			b := make([]byte, 65535)
			for _, size := range []int{0, 1, 100, 1472, 1473, 9000, 40000} {
				want := pattern(size)
				if _, err := c.Write(want); err != nil {
					t.Fatal(err)
				}
				n, err := c.Read(b)
				if err != nil || !bytes.Equal(b[:n], want) {
					t.Fatalf("%d bytes: %d came back, %v", size, n, err)
				}
			}
		})
	}
}

// TestUDPRefused: a port without a listener, or one that is not reached, is
// unreachable.
func TestUDPRefused(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		l, err := net.ListenPacket(network, strings.Replace("localhost:0", "localhost", map[string]string{"udp4": "127.0.0.1", "udp6": "[::1]"}[network], 1))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		port := l.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		gateway := map[string]netip.Addr{"udp4": Gateway, "udp6": Gateway6}[network]
		for _, loopback := range []bool{true, false} {
			t.Run(fmt.Sprint(network, loopback), func(t *testing.T) {
				g := newGuest(t, Config{HostLoopback: loopback}, allOffloads, nil)
				quotes := make(chan []byte, 1)
				g.sniff(func(b []byte) bool {
					ip4, ip6 := header.IPv4(b[14:]), header.IPv6(b[14:])
					switch {
					case gateway.Is4() && header.Ethernet(b).Type() == header.IPv4ProtocolNumber && ip4.Protocol() == 1 && bytes.HasPrefix(ip4.Payload(), []byte{3, 3}):
						quotes <- ip4.Payload()[8:]
					case gateway.Is6() && header.Ethernet(b).Type() == header.IPv6ProtocolNumber && ip6.NextHeader() == 58 && bytes.HasPrefix(ip6.Payload(), []byte{1, 4}):
						quotes <- ip6.Payload()[8:]
					}
					return false
				})
				c := g.dialUDP(netip.AddrPortFrom(gateway, port))
				c.Write([]byte("hello"))
				q := receive(t, "port unreachable", quotes)
				if gateway.Is4() {
					q = q[20:]
				} else {
					q = q[40:]
				}
				if got := header.UDP(q).DestinationPort(); got != port {
					t.Errorf("port %d, want %d", got, port)
				}
			})
		}
	}
}

// TestBroadcast: broadcast addresses of the host's networks are not reached, even if
// only the kernel knows them.
func TestBroadcast(t *testing.T) {
	g := newGuest(t, Config{}, 0, nil)
	f := &flow{sa: sockaddr(netip.MustParseAddrPort("127.255.255.255:9")), via: g.net.mapped(netip.AddrPortFrom(Guest, 9))}
	if g.net.sendFlow(f, []byte("x")) {
		t.Error("a datagram to a network's broadcast address")
	}
}

// eventually polls for a condition that nothing signals.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

// TestForwardUDP: a host program sends first, and gets the guest's answer.
func TestForwardUDP(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		t.Run(listen, func(t *testing.T) {
			g := newGuest(t, Config{Forwards: []Forward{{true, netip.MustParseAddrPort(listen), 7}}}, allOffloads, nil)
			at := fullAddress(netip.AddrPortFrom(Guest, 7))
			s, err := gonet.DialUDP(g.stack, &at, nil, protocol(Guest))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			from := make(chan net.Addr, 4)
			go func() {
				b := make([]byte, 100)
				for {
					n, a, err := s.ReadFrom(b)
					if err != nil {
						return
					}
					from <- a
					s.WriteTo(append([]byte("re: "), b[:n]...), a)
				}
			}()
			to := g.net.Forwarded()[0].Listen
			if to.Addr().IsUnspecified() {
				to = netip.AddrPortFrom(loopback(to.Addr()), to.Port())
			}
			seen := map[string]bool{}
			for i := range 3 {
				c, err := net.Dial("udp", to.String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(deadline))
				for range 2 {
					fmt.Fprintf(c, "%d", i)
					b := make([]byte, 100)
					n, err := c.Read(b)
					if want := fmt.Sprintf("re: %d", i); err != nil || string(b[:n]) != want {
						t.Fatalf("%q, want %q; %v", b[:n], want, err)
					}
					seen[(<-from).String()] = true
				}
			}
			if len(seen) != 3 {
				t.Errorf("three senders are %v for the guest", seen)
			}
			for a := range seen {
				if !strings.HasPrefix(a, Gateway.String()+":") {
					t.Errorf("sent by %s", a)
				}
			}
		})
	}
}

// loopback returns the host's loopback address of a's family.
func loopback(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

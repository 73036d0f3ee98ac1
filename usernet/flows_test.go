package usernet

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// counts returns the number of guest ports with a host port, and the number of flows.
func (g *guest) counts() (mappings, flows int) {
	s := &g.net.flows
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mappings), s.own.held
}

// TestFlows: the number of ports is bounded, the oldest gives way, and silent ports
// end.
func TestFlows(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, allOffloads, func(s *settings) { s.flowTimeout = 300 * time.Millisecond })
	at := serveUDP(t, "udp4", same)
	for i := range maxMappings + 100 {
		g.send(GatewayMAC, 0x800, udpPacket(netip.AddrPortFrom(Guest, uint16(1000+i)), at, []byte("x")))
		if n, _ := g.counts(); n > maxMappings {
			t.Fatalf("%d ports", n)
		}
	}
	eventually(t, "the flows end", func() bool { n, m := g.counts(); return n == 0 && m == 0 })
	g.net.clock.stop() // or this one ends too on a slow host
	c := g.dialUDP(at)
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if defaults.flowTimeout < 2*time.Minute {
		t.Errorf("flows live %v; RFC 4787 has 2 minutes at least", defaults.flowTimeout)
	}
}

// listener returns a host socket, and its address as the guest sees it.
func listener(t *testing.T, network string) (*net.UDPConn, netip.AddrPort) {
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
	c.SetDeadline(time.Now().Add(deadline))
	return c.(*net.UDPConn), netip.AddrPortFrom(gateway, c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
}

// TestMapping: all peers see one port for a guest port (so STUN's answer is true). An
// address that the guest has sent to may answer from another port; no other address
// may.
func TestMapping(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
			bound := fullAddress(netip.AddrPortFrom(Guest, 4000))
			if network == "udp6" {
				bound = fullAddress(netip.AddrPortFrom(guest6, 4000))
			}
			c, err := gonet.DialUDP(g.stack, &bound, nil, protocol(address(bound.Addr)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(deadline))
			var seen netip.AddrPort
			for i := range 3 {
				s, at := listener(t, network)
				if _, err := c.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(at)); err != nil {
					t.Fatal(err)
				}
				_, from, err := s.ReadFromUDPAddrPort(make([]byte, 10))
				if err != nil || i > 0 && from != seen {
					t.Fatalf("server %d sees %v, the first %v; %v", i, from, seen, err)
				}
				seen = from
			}
			other, at := listener(t, network)
			other.WriteToUDPAddrPort([]byte("from another port"), seen)
			b := make([]byte, 100)
			n, from, err := c.ReadFrom(b)
			if err != nil || string(b[:n]) != "from another port" || from.String() != at.String() {
				t.Errorf("%q of %v, %v; want %v", b[:n], from, err, at)
			}
		})
	}
}

// TestFilter: datagrams from an address that the guest has not sent to are lost.
func TestFilter(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
	s, at := listener(t, "udp4")
	c := g.dialUDP(at)
	c.Write([]byte("x"))
	_, seen, err := s.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	var got []netip.Addr
	g.sniff(func(b []byte) bool {
		if len(b) > 42 && b[12] == 8 && b[13] == 0 && b[23] == 17 {
			a, _ := netip.AddrFromSlice(b[26:30])
			got = append(got, a)
		}
		return false
	})
	stranger.WriteToUDPAddrPort([]byte("stranger"), seen)
	s.WriteToUDPAddrPort([]byte("y"), seen) // follows the stranger's
	b := make([]byte, 10)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "y" {
		t.Errorf("%q, %v", b[:n], err)
	}
	if len(got) != 1 || got[0] != Gateway {
		t.Errorf("datagrams of %v", got)
	}
}

// TestFlood: a peer that sends to a published port from every port it has takes no
// flow from the guest, from another peer or from another port.
func TestFlood(t *testing.T) {
	any := netip.MustParseAddrPort("127.0.0.1:0")
	g := newGuest(t, Config{HostLoopback: true, Forwards: []Forward{{true, any, 7}, {true, any, 8}}}, allOffloads, nil)
	s, at := listener(t, "udp4")
	c := g.dialUDP(at)
	c.Write([]byte("x"))
	_, seen, err := s.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	flood, other := g.net.ports[0], g.net.ports[1]
	victim := netip.MustParseAddrPort("192.0.2.1:1")
	for _, p := range g.net.ports {
		if g.net.newPeer(p, victim) == nil {
			t.Fatal("no flow")
		}
	}
	for i := range 2 * maxPeers {
		if g.net.newPeer(flood, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), uint16(1+i))) == nil {
			t.Fatalf("no flow for datagram %d", i)
		}
	}
	for i := range 100 { // in one network
		g.net.newPeer(flood, netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)), 1))
	}
	if g.net.flows.arrived(flood, victim) == nil || g.net.flows.arrived(other, victim) == nil {
		t.Error("another peer's flow has given way")
	}
	if n := flood.pool.held; n > maxPeers {
		t.Errorf("%d flows", n)
	}
	s.WriteToUDPAddrPort([]byte("y"), seen)
	b := make([]byte, 10)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "y" {
		t.Errorf("%q, %v: the guest's own flow has given way", b[:n], err)
	}
}

// TestMadeUpSenders: datagrams to a published port from ever new addresses replace
// only flows that the guest has not answered.
func TestMadeUpSenders(t *testing.T) {
	g := newGuest(t, Config{Forwards: []Forward{{true, netip.MustParseAddrPort("127.0.0.1:0"), 7}}}, allOffloads, nil)
	p := g.net.ports[0]
	answered, silent := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1")
	f := g.net.newPeer(p, answered)
	if f == nil || g.net.newPeer(p, silent) == nil || g.net.flows.sent(f.id) != f {
		t.Fatal("no flow")
	}
	for i := range 2 * maxPeers {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 1)
		if g.net.newPeer(p, from) == nil {
			t.Fatalf("no flow for datagram %d", i)
		}
	}
	if g.net.flows.arrived(p, silent) != nil {
		t.Error("a flow that was not answered has not given way")
	}
	if g.net.flows.arrived(p, answered) != f {
		t.Error("a flow that was answered has given way")
	}
}

// TestPool: which flow gives way.
func TestPool(t *testing.T) {
	const size = 8
	type step struct {
		party int
		brief bool
		gone  int // the step whose flow gives way; 0 for none
	}
	for name, steps := range map[string][]step{
		"alone":            {{1, false, 0}, {1, false, 0}, {1, false, 0}, {1, false, 0}, {1, false, 1}, {1, false, 2}},
		"another":          {{1, false, 0}, {1, false, 0}, {1, false, 0}, {1, false, 0}, {2, false, 0}, {2, false, 0}, {1, false, 1}, {2, false, 5}},
		"all are others":   {{1, false, 0}, {2, false, 0}, {3, false, 0}, {4, false, 0}, {5, false, 0}, {6, false, 0}, {7, false, 0}, {8, false, 0}, {9, false, 1}},
		"brief ones first": {{1, false, 0}, {2, false, 0}, {3, true, 0}, {4, false, 0}, {5, true, 0}, {6, false, 0}, {7, false, 0}, {8, false, 0}, {9, false, 3}, {10, false, 5}, {11, false, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var s flows
			s.init(newClock(nil))
			s.own = newPool(size)
			to := &published{pool: newPool(size), peers: map[netip.AddrPort]*flow{}}
			made := []*flow{nil}
			for i, step := range steps {
				f := &flow{id: stack.TransportEndpointID{LocalPort: uint16(i + 1)}, to: to, party: netip.AddrPortFrom(Guest, uint16(step.party))}
				made = append(made, f)
				if !s.add(f, step.brief) {
					t.Fatal(i)
				}
				if s.add(f, step.brief) {
					t.Fatalf("step %d twice", i+1)
				}
				var gone []int
				for j, f := range made {
					if f != nil && f.ended {
						gone = append(gone, j)
						made[j] = nil
					}
				}
				if want := fmt.Sprint([]int{step.gone}[:min(step.gone, 1)]); fmt.Sprint(gone) != want {
					t.Errorf("step %d: %v give way, want %s", i+1, gone, want)
				}
			}
			s.closeAll()
			if to.pool.held != 0 || len(to.pool.parties) != 0 || len(s.byID) != 0 || s.add(&flow{to: to}, false) {
				t.Errorf("something is left at the end")
			}
		})
	}
}

// TestShares: one peer leaves room for other peers, and one port for other ports.
func TestShares(t *testing.T) {
	s := newShares(1000)
	a, b := &published{}, &published{}
	peer := func(p *published, n int) holder { return holder{p, netip.AddrPortFrom(Guest, uint16(n))} }
	take := func(h holder) (n int) {
		for s.take(h) {
			n++
		}
		return n
	}
	got := []int{take(peer(a, 1)), take(peer(a, 2)), take(peer(a, 3)), take(peer(b, 1))}
	if want := "[600 120 24 154]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	for range got[0] {
		s.give(peer(a, 1))
	}
	if n := take(peer(b, 2)); n < 200 {
		t.Errorf("%d of what was given back", n)
	}
}

// TestUnreachable: a guest port is told which of its peers is unreachable, and still
// works with the others.
func TestUnreachable(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
	closed, gone := listener(t, "udp4")
	closed.Close()
	s, at := listener(t, "udp4")
	quotes := make(chan []byte, 100)
	g.sniff(func(b []byte) bool {
		if len(b) >= 34+8+28 && b[12] == 8 && b[13] == 0 && b[23] == 1 {
			quotes <- b[34:]
			return true // or gonet gives up
		}
		return false
	})
	for range 3 { // a pending error loses no datagram to another peer
		g.send(GatewayMAC, 0x800, udpPacket(netip.AddrPortFrom(Guest, 5000), gone, []byte("x")))
		g.send(GatewayMAC, 0x800, udpPacket(netip.AddrPortFrom(Guest, 5000), at, []byte("y")))
		if _, _, err := s.ReadFromUDPAddrPort(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		q := receive(t, "port unreachable", quotes)
		if q[0] != 3 || q[1] != 3 || int(q[8+22])<<8+int(q[8+23]) != int(gone.Port()) {
			t.Errorf("% x", q)
		}
	}
}

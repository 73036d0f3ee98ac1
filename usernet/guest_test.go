package usernet

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"vmm/ethernet"
	"vmm/test/allow"
)

// deadline bounds every wait in a test.
var deadline = allow.Time(20 * time.Second)

const allOffloads = ethernet.Checksum | ethernet.TSO4 | ethernet.TSO6

var (
	guestMAC = ethernet.MAC{0x52, 0x54, 0, 1, 2, 3}
	guest6   = netip.MustParseAddr("fd00:0:0:2::15")
)

// guest is another netstack at the other end of the cable, and its driver: a
// stack.LinkEndpoint, and an ethernet.Guest.
type guest struct {
	endpoint // for the parts that are the same at both ends
	t        testing.TB
	net      *Network
	stack    *stack.Stack
	offload  ethernet.Offload // what the network may leave out
	room     [][]byte
	tap      atomic.Pointer[func(ethernet.Header, []byte) bool] // sees frames first; true: the frame ends there

	frames, segmented atomic.Int64 // frames received; those with a GSO type
	reading           atomic.Int32
	closing           atomic.Bool
}

// newGuest starts a network and a guest on it.
func newGuest(t testing.TB, c Config, offload ethernet.Offload, change func(*settings)) *guest {
	t.Helper()
	s := defaults
	s.dialTimeout, s.dnsTimeout, s.dnsNext = 5*time.Second, 10*time.Second, 100*time.Millisecond
	s.resolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	if change != nil {
		change(&s)
	}
	n, err := newNetwork(c, s)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, net: n, offload: offload, room: [][]byte{make([]byte, 10), make([]byte, 1516), make([]byte, ethernet.MaxFrame)}}
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	g.check(g.stack.CreateNIC(1, g))
	for _, a := range []netip.Prefix{netip.PrefixFrom(Guest, 24), netip.PrefixFrom(guest6, 64)} {
		g.check(g.stack.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: protocol(a.Addr()), AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpipAddress(a.Addr()), PrefixLen: a.Bits()}}, stack.AddressProperties{}))
	}
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, Gateway: tcpipAddress(Gateway), NIC: 1},
		{Destination: header.IPv6EmptySubnet, Gateway: tcpipAddress(Gateway6), NIC: 1},
	})
	sack := tcpip.TCPSACKEnabled(true)
	g.check(g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack))
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&tcpip.TCPSendBufferSizeRangeOption{Min: 4096, Default: 1 << 20, Max: 1 << 20},
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: 1 << 20, Max: 1 << 20},
	} {
		g.check(g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o))
	}
	if err := n.Configure(ethernet.Mode{Pairs: 1, Offload: offload}); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(g); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	return g
}

func (g *guest) close() {
	if g.closing.Swap(true) {
		return
	}
	g.net.Stop()
	g.net.Close()
	g.stack.RemoveNIC(1)
	g.stack.Destroy()
}

func (g *guest) check(err tcpip.Error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) LinkAddress() tcpip.LinkAddress { return tcpip.LinkAddress(guestMAC[:]) }

// Capabilities implements stack.LinkEndpoint: all checksums are verified.
func (*guest) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired
}

func (g *guest) SupportedGSO() stack.SupportedGSO {
	if g.offload&ethernet.TSO4 == 0 {
		return stack.GSONotSupported
	}
	return stack.HostGSOSupported
}

var sending = sync.Pool{New: func() any { return new([ethernet.MaxFrame]byte) }}

// WritePackets sends the guest's packets.
func (g *guest) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		var h ethernet.Header
		frame := sending.Get().(*[ethernet.MaxFrame]byte)
		n := whole(pkt, &h, [][]byte{frame[:]})
		third := n / 3
		if err := g.net.Send(0, &h, [][]byte{frame[:third], nil, frame[third:n]}); err != nil && !g.closing.Load() {
			g.t.Errorf("Send: %v", err)
		}
		clear(frame[:n]) // none of it may be used after Send
		sending.Put(frame)
	}
	return pkts.Len(), nil
}

// Readable implements ethernet.Guest.
func (g *guest) Readable(int) bool {
	if g.reading.Add(1) != 1 {
		g.t.Error("two calls of Readable at once")
	}
	defer g.reading.Add(-1)
	var h ethernet.Header
	for {
		n, err := g.net.Receive(0, &h, g.room)
		if err == ethernet.ErrAgain {
			return true
		}
		if err != nil {
			g.t.Errorf("Receive: %v", err)
			return true
		}
		b := make([]byte, n)
		copyFrom(b, g.room)
		g.take(h, b)
	}
}

func copyFrom(b []byte, room [][]byte) {
	for _, r := range room {
		b = b[copy(b, r):]
	}
}

func (*guest) Writable(int) {}

// take gives netstack a frame, and fills in its checksum if it was left out.
func (g *guest) take(h ethernet.Header, b []byte) {
	if tap := g.tap.Load(); tap != nil && (*tap)(h, b) {
		return
	}
	g.frames.Add(1)
	needs, ok := h.Needs()
	if !ok || needs&^g.net.current() != 0 && needs&^g.offload != 0 {
		g.t.Errorf("a frame with the header % x, which needs %#x", h, needs)
	}
	if h.GSOType() != ethernet.GSONone {
		g.segmented.Add(1)
	} else if len(b) > ethernet.HeaderLen+MTU {
		g.t.Errorf("a frame of %d bytes that is not segmented", len(b))
	}
	if h.Flags()&ethernet.NeedsChecksum != 0 {
		start := int(h.ChecksumStart())
		at := start + int(h.ChecksumOffset())
		binary.BigEndian.PutUint16(b[at:], ^checksum.Checksum(b[start:], 0))
	}
	g.deliver(b)
}

func (n *Network) current() ethernet.Offload { return ethernet.Offload(n.offload.Load()) }

func (g *guest) deliver(b []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	defer pkt.DecRef()
	if link, ok := pkt.LinkHeader().Consume(ethernet.HeaderLen); ok {
		if d := g.dispatcher.Load(); d != nil {
			(*d).DeliverNetworkPacket(header.Ethernet(link).Type(), pkt)
		}
	}
}

// dial connects from the guest.
func (g *guest) dial(a netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	return gonet.DialContextTCP(ctx, g.stack, fullAddress(a), protocol(a.Addr()))
}

func (g *guest) mustDial(a netip.AddrPort) *gonet.TCPConn {
	g.t.Helper()
	c, err := g.dial(a)
	if err != nil {
		g.t.Fatalf("dial %v: %v", a, err)
	}
	c.SetDeadline(time.Now().Add(deadline))
	g.t.Cleanup(func() { c.Close() })
	return c
}

func (g *guest) dialUDP(a netip.AddrPort) *gonet.UDPConn {
	g.t.Helper()
	to := fullAddress(a)
	c, err := gonet.DialUDP(g.stack, nil, &to, protocol(a.Addr()))
	if err != nil {
		g.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(deadline))
	g.t.Cleanup(func() { c.Close() })
	return c
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: 1, Addr: tcpipAddress(a.Addr()), Port: a.Port()}
}

// serve listens on the host's loopback, and returns its address as the guest sees it.
func serve(t testing.TB, network string, f func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	address, gateway := "127.0.0.1:0", Gateway
	if network == "tcp6" {
		address, gateway = "[::1]:0", Gateway6
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(deadline))
			go func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			}()
		}
	}()
	return netip.AddrPortFrom(gateway, l.Addr().(*net.TCPAddr).AddrPort().Port())
}

func echo(c *net.TCPConn) {
	io.Copy(c, c)
	c.CloseWrite()
}

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// sniff shows f each frame before the guest sees it. Frames for which f returns true
// do not reach the guest.
func (g *guest) sniff(f func(frame []byte) bool) {
	tap := func(_ ethernet.Header, b []byte) bool { return f(b) }
	g.tap.Store(&tap)
}

// send sends a packet to dst, the gateway or broadcast.
func (g *guest) send(dst ethernet.MAC, proto tcpip.NetworkProtocolNumber, packet []byte) {
	g.t.Helper()
	b := append(append(dst[:], guestMAC[:]...), byte(proto>>8), byte(proto))
	if err := g.net.Send(0, &ethernet.Header{}, [][]byte{append(b, packet...)}); err != nil {
		g.t.Error(err)
	}
}

// receive returns the next value on c.
func receive[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(deadline):
		t.Fatalf("timeout: %s", what)
	}
	return v
}

// udpPacket is an IPv4 packet with a datagram.
func udpPacket(src, dst netip.AddrPort, data []byte) []byte {
	size := header.IPv4MinimumSize + header.UDPMinimumSize + len(data)
	b := make([]byte, size)
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(size), TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: tcpipAddress(src.Addr()), DstAddr: tcpipAddress(dst.Addr())})
	ip.SetChecksum(^ip.CalculateChecksum())
	u := header.UDP(b[header.IPv4MinimumSize:])
	u.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(header.UDPMinimumSize + len(data))})
	copy(u.Payload(), data)
	return b
}

// wait waits for c.
func wait(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(deadline):
		t.Fatalf("timeout: %s", what)
	}
}

// synPacket is an IPv4 packet that opens a connection.
func synPacket(src, dst netip.AddrPort) []byte {
	b := make([]byte, 40)
	header.IPv4(b).Encode(&header.IPv4Fields{TotalLength: 40, TTL: 64, Protocol: 6, SrcAddr: tcpipAddress(src.Addr()), DstAddr: tcpipAddress(dst.Addr())})
	header.IPv4(b).SetChecksum(^header.IPv4(b).CalculateChecksum())
	header.TCP(b[20:]).Encode(&header.TCPFields{SrcPort: src.Port(), DstPort: dst.Port(), SeqNum: 1, DataOffset: 20, Flags: header.TCPFlagSyn, WindowSize: 1000})
	return b
}

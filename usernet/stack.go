package usernet

import (
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const nicID = 1

// Buffers of a connection, each way. A quarter of one is in flight between two
// processes of one host at 10 Gbit/s. Connections after the first manyConnections get
// less: maxConnections of them hold less than 1 GiB, including copies in progress.
const (
	bufferSize      = 1 << 20
	smallBufferSize = 64 << 10
	manyConnections = 128
)

// quiet keeps netstack from logging to stderr, which packets from the guest could
// cause.
var quiet = sync.OnceFunc(func() { log.SetTarget(&log.GoogleEmitter{Writer: &log.Writer{Next: io.Discard}}) })

// newStack makes netstack with the network's addresses. It accepts packets to any
// address (promiscuous), and answers from any (spoofing).
func (n *Network) newStack() error {
	quiet()
	s := stack.New(stack.Options{
		Clock: n.clock,
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol,
			ipv6.NewProtocolWithOptions(ipv6.Options{}), // no duplicate address detection: the addresses are valid at once
			arp.NewProtocol,
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	n.stack = s
	n.link = &endpoint{out: n.out, owner: n.config.Owner}
	if err := s.CreateNIC(nicID, n.link); err != nil {
		return errors.New(err.String())
	}
	for _, a := range []netip.Prefix{
		netip.PrefixFrom(Gateway, Subnet.Bits()),
		netip.PrefixFrom(DNS, Subnet.Bits()),
		netip.PrefixFrom(Gateway6, Subnet6.Bits()),
		netip.PrefixFrom(DNS6, Subnet6.Bits()),
		netip.PrefixFrom(routerLinkLocal, 64),
	} {
		p := tcpip.ProtocolAddress{
			Protocol:          protocol(a.Addr()),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpipAddress(a.Addr()), PrefixLen: a.Bits()},
		}
		if err := s.AddProtocolAddress(nicID, p, stack.AddressProperties{}); err != nil {
			return errors.New(err.String())
		}
	}
	var routes []tcpip.Route
	for _, p := range []netip.Prefix{Subnet, Subnet6, netip.MustParsePrefix("fe80::/64")} {
		a := tcpip.AddressWithPrefix{Address: tcpipAddress(p.Addr()), PrefixLen: p.Bits()}
		routes = append(routes, tcpip.Route{Destination: a.Subnet(), NIC: nicID})
	}
	s.SetRouteTable(routes)
	s.SetPromiscuousMode(nicID, true)
	s.SetSpoofing(nicID, true)
	if err := setTCPOptions(s); err != nil {
		return errors.New(err.String())
	}
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, n.newTCP())
	s.SetTransportProtocolHandler(udp.ProtocolNumber, n.handleUDP)
	s.SetTransportProtocolHandler(icmp.ProtocolNumber4, n.handleEcho)
	s.SetTransportProtocolHandler(icmp.ProtocolNumber6, n.handleEcho)
	return nil
}

func setTCPOptions(s *stack.Stack) tcpip.Error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(false)
	// What remains of a closed connection counts against the guest's bound, so it is
	// dropped early.
	timeWait, linger, synRetries := tcpip.TCPTimeWaitTimeoutOption(time.Second), tcpip.TCPLingerTimeoutOption(30*time.Second), tcpip.TCPSynRetriesOption(4)
	retries := tcpip.TCPMaxRetriesOption(64) // two hours for a guest that has suspended itself
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&sack,
		&moderate,
		&timeWait,
		&linger,
		&synRetries,
		&retries,
		&tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: bufferSize, Max: bufferSize},
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: bufferSize, Max: bufferSize},
	} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return err
		}
	}
	return nil
}

// write sends a packet to the guest. b is the transport packet; its first headerSize
// bytes are the header, which finish completes. Netstack fragments a packet that does
// not fit into a frame.
func (n *Network) write(src, dst netip.Addr, transport tcpip.TransportProtocolNumber, headerSize int, b []byte, finish func(r *stack.Route, header []byte)) {
	r, err := n.stack.FindRoute(nicID, tcpipAddress(src), tcpipAddress(dst), protocol(src), false)
	if err != nil {
		return
	}
	defer r.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(r.MaxHeaderLength()) + headerSize,
		Payload:            buffer.MakeWithData(b[headerSize:]),
	})
	defer pkt.DecRef()
	h := pkt.TransportHeader().Push(headerSize)
	copy(h, b)
	pkt.TransportProtocolNumber = transport
	finish(r, h)
	r.WritePacket(stack.NetworkHeaderParams{Protocol: transport, TTL: r.DefaultTTL()}, pkt)
}

// dataOf returns the first size bytes after the headers of a packet, or nil. They are
// valid as long as the packet.
func dataOf(pkt *stack.PacketBuffer, size int) []byte {
	if size < 0 || size > pkt.Data().Size() {
		return nil
	}
	b, ok := pkt.Data().PullUp(size)
	if !ok {
		return nil
	}
	if b == nil {
		b = []byte{}
	}
	return b
}

// endpoints returns the source and destination of a packet from the guest, by
// netstack's name for it.
func endpoints(id stack.TransportEndpointID) (from, to netip.AddrPort) {
	return netip.AddrPortFrom(address(id.RemoteAddress), id.RemotePort), netip.AddrPortFrom(address(id.LocalAddress), id.LocalPort)
}

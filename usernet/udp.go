package usernet

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// handleUDP takes a datagram from the guest. It returns false for one to be answered as
// unreachable. Send calls it; it does not block.
func (n *Network) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	data := dataOf(pkt, int(header.UDP(pkt.TransportHeader().Slice()).Length())-header.UDPMinimumSize)
	if data == nil {
		return true
	}
	from, to := endpoints(id)
	if to.Port() == dhcpServerPort && from.Port() == dhcpClientPort && (to.Addr() == Gateway || id.LocalAddress == header.IPv4Broadcast) {
		n.handleDHCP(data)
		return true
	}
	switch {
	case !neighbour(from.Addr()), pkt.PktType != tcpip.PacketHost, to.Addr().IsMulticast():
		return true // without an answer
	case isDNS(to.Addr()) && to.Port() == dnsPort:
		n.handleDNS(from, to, data)
		return true
	}
	f := n.flows.sent(id)
	if f == nil {
		f = n.newFlow(id, quoteOf(pkt))
	} else if !n.reachesStill(f) {
		n.flows.end(f)
		f = nil
	}
	return f != nil && n.sendFlow(f, data)
}

// recheck is how long a check that the guest reaches a flow's peer is valid.
const recheck = time.Second

// reachesStill reports whether the guest still reaches a flow's peer: the address may
// have become this host's.
func (n *Network) reachesStill(f *flow) bool {
	now := time.Now().UnixNano()
	if f.via == nil || now-f.checked.Load() < int64(recheck) {
		return true
	}
	f.checked.Store(now)
	_, ok := n.host(address(f.id.LocalAddress))
	return ok
}

// newFlow makes a flow to the destination that the guest wants, or returns nil.
func (n *Network) newFlow(id stack.TransportEndpointID, quote []byte) *flow {
	from, to := endpoints(id)
	host, ok := n.host(to.Addr())
	if !ok {
		return nil
	}
	m := n.mapped(from)
	if m == nil {
		return nil
	}
	f := &flow{id: id, peer: netip.AddrPortFrom(host, to.Port()), via: m, party: from, quote: quote}
	f.sa = sockaddr(f.peer)
	f.checked.Store(time.Now().UnixNano())
	// RFC 4787 §4.3 lets flows of well-known ports end early: a guest that runs its own
	// resolver uses a port for each query.
	if !n.flows.add(f, to.Port() == dnsPort) {
		n.flows.endUnused(m)
		return nil
	}
	return f
}

// sendFlow sends a datagram to a flow's peer, or drops it. It returns false if the peer
// is unreachable.
func (n *Network) sendFlow(f *flow, b []byte) bool {
	raw := f.raw()
	var err error
	raw.Write(func(fd uintptr) bool {
		for range 2 { // the first error may concern a datagram to another peer
			if err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, f.sa); err == nil || err == unix.EAGAIN {
				break
			}
		}
		return true
	})
	switch err {
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EPERM, unix.EINVAL:
		return false
	}
	return true
}

// quoteOf returns the part of a packet that an ICMP message quotes.
func quoteOf(pkt *stack.PacketBuffer) []byte {
	return append(append([]byte(nil), pkt.NetworkHeader().Slice()...), pkt.TransportHeader().Slice()...)
}

// sockaddr converts Go's address to the kernel's.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zone(a.Addr())}
}

// datagrams are buffers for one datagram each.
var datagrams = sync.Pool{New: func() any { return new([maxPacket]byte) }}

// writeUDP sends a datagram to the guest.
func (n *Network) writeUDP(src, dst netip.AddrPort, b []byte) {
	size := header.UDPMinimumSize + len(b)
	if size > maxPacket {
		return
	}
	message := append(make([]byte, header.UDPMinimumSize, size), b...)
	n.write(src.Addr(), dst.Addr(), header.UDPProtocolNumber, header.UDPMinimumSize, message, func(r *stack.Route, h []byte) {
		u := header.UDP(h)
		u.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(size)})
		sum := ^u.CalculateChecksum(checksum.Checksum(b, r.PseudoHeaderChecksum(header.UDPProtocolNumber, uint16(size))))
		if sum == 0 {
			sum = 0xffff // RFC 768: 0 means no checksum
		}
		u.SetChecksum(sum)
	})
}

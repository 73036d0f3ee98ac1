package usernet

import (
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// echoTimeout is how long to wait for an answer.
const echoTimeout = 10 * time.Second

// handleEcho takes ICMP and ICMPv6 messages from the guest: echo requests, and others,
// which it drops. It returns false for one that netstack answers itself. Send calls it;
// it does not block.
func (n *Network) handleEcho(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	message := append(append([]byte(nil), pkt.TransportHeader().Slice()...), dataOf(pkt, pkt.Data().Size())...)
	from, to := endpoints(id)
	if len(message) < header.ICMPv4MinimumSize || !neighbour(from.Addr()) || pkt.PktType != tcpip.PacketHost || !isEchoRequest(message, to.Addr()) {
		return true
	}
	if local(to.Addr()) {
		return false
	}
	host, ok := n.host(to.Addr())
	if !ok {
		return true
	}
	select {
	case n.echoes <- struct{}{}:
	default:
		return true // too many
	}
	if !n.start(func() {
		defer func() { <-n.echoes }()
		n.echo(from.Addr(), to.Addr(), host, message)
	}) {
		<-n.echoes
	}
	return true
}

func isEchoRequest(message []byte, to netip.Addr) bool {
	if to.Is4() {
		return header.ICMPv4(message).Type() == header.ICMPv4Echo
	}
	return header.ICMPv6(message).Type() == header.ICMPv6EchoRequest
}

// echo sends a request to a host, and its answer to the guest. The kernel replaces the
// identifier in the request; echo puts the guest's back.
func (n *Network) echo(from, to, host netip.Addr, message []byte) {
	c, err := dialICMP(host)
	if err != nil {
		n.denied.Do(func() {
			n.log.Warn("user network: the guest cannot ping; allow it with: sysctl net.ipv4.ping_group_range='0 2147483647'", "err", err)
		})
		return
	}
	if !n.keep(c) {
		return
	}
	defer n.forget(c)
	c.SetDeadline(time.Now().Add(echoTimeout))
	if _, err := c.Write(message); err != nil {
		return
	}
	b := datagrams.Get().(*[maxPacket]byte)
	defer datagrams.Put(b)
	for {
		size, err := c.Read(b[:])
		if err != nil {
			return
		}
		// The type must be 0 or 129, and the sequence number that of the request.
		reply := b[:size]
		if size < header.ICMPv4MinimumSize || isEchoRequest(reply, to) || string(reply[6:8]) != string(message[6:8]) {
			continue
		}
		copy(reply[4:6], message[4:6])
		n.writeICMP(to, from, reply)
		return
	}
}

// dialICMP opens an unprivileged ICMP socket, if the kernel allows it: see
// net.ipv4.ping_group_range in icmp(7).
func dialICMP(host netip.Addr) (net.Conn, error) {
	family, proto := unix.AF_INET6, unix.IPPROTO_ICMPV6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: host.As16()}
	if host.Is4() {
		family, proto, sa = unix.AF_INET, unix.IPPROTO_ICMP, &unix.SockaddrInet4{Addr: host.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "icmp")
	defer f.Close()
	if err := unix.Connect(fd, sa); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

// writeICMP sends an ICMP or ICMPv6 message to the guest.
func (n *Network) writeICMP(src, dst netip.Addr, b []byte) {
	if src.Is4() {
		n.write(src, dst, header.ICMPv4ProtocolNumber, header.ICMPv4MinimumSize, b, func(_ *stack.Route, h []byte) {
			m := header.ICMPv4(h)
			m.SetChecksum(0)
			m.SetChecksum(header.ICMPv4Checksum(m, checksum.Checksum(b[len(h):], 0)))
		})
		return
	}
	n.write(src, dst, header.ICMPv6ProtocolNumber, header.ICMPv6MinimumSize, b, func(r *stack.Route, h []byte) {
		m := header.ICMPv6(h)
		m.SetChecksum(0)
		m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
			Header: m, Src: r.LocalAddress(), Dst: r.RemoteAddress(),
			PayloadCsum: checksum.Checksum(b[len(h):], 0), PayloadLen: len(b) - len(h),
		}))
	})
}

// writeUnreachable tells the guest that one of its packets did not arrive. kind and
// code are those of ICMP or ICMPv6, and quote is the start of the packet.
func (n *Network) writeUnreachable(src, dst netip.Addr, kind, code byte, quote []byte) {
	n.writeICMP(src, dst, append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, quote...))
}

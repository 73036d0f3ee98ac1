package usernet

import (
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// mapping is a guest port and the host port that stands for it, the same for every peer
// (RFC 4787 §4.1, endpoint-independent mapping): the address that a STUN server reports
// holds for others too. Only addresses that the guest has sent to may send to it, from
// any port (§5, address-dependent filtering). A guest that wants to be reached by all
// uses published ports.
type mapping struct {
	from netip.AddrPort // the guest's
	conn *net.UDPConn
	raw  syscall.RawConn

	peers map[netip.Addr]*known // guarded by flows.mu, as is all below; by the host's address
	age   age
	ended bool
}

// known is an address that a guest port has sent to.
type known struct {
	name  netip.Addr // the guest's name for it
	flows int
}

// meet notes a peer that the guest sends to. flows.mu is held.
func (m *mapping) meet(f *flow) {
	k := m.peers[f.peer.Addr()]
	if k == nil {
		k = &known{name: address(f.id.LocalAddress)}
		m.peers[f.peer.Addr()] = k
	}
	k.flows++
}

// part undoes meet, and reports whether no peer is left.
func (m *mapping) part(f *flow) bool {
	k := m.peers[f.peer.Addr()]
	if k.flows--; k.flows == 0 {
		delete(m.peers, f.peer.Addr())
	}
	return len(m.peers) == 0
}

// mapped returns the mapping of a guest port, which it makes if needed, or nil.
func (n *Network) mapped(from netip.AddrPort) *mapping {
	s := &n.flows
	s.mu.Lock()
	m := s.mappings[from]
	s.mu.Unlock()
	if m != nil {
		return m
	}
	m = &mapping{from: from, peers: map[netip.Addr]*known{}}
	if !m.open(n) {
		return nil
	}
	s.mu.Lock()
	defer s.unlock()
	if other := s.mappings[from]; other != nil || s.closed {
		s.dead = append(s.dead, m)
		return other
	}
	if len(s.mappings) >= n.bounds.mappings {
		s.removeMapping(s.ages.oldest().(*mapping))
	}
	if !n.start(func() { n.receiveMapping(m) }) {
		s.dead = append(s.dead, m)
		return nil
	}
	s.mappings[from] = m
	s.ages.add(m, &m.age, true, s.clock.now())
	return m
}

// open makes the socket, which receives ICMP errors together with the peer they
// concern.
func (m *mapping) open(n *Network) bool {
	network, level, option := "udp6", unix.SOL_IPV6, unix.IPV6_RECVERR
	if m.from.Addr().Is4() {
		network, level, option = "udp4", unix.SOL_IP, unix.IP_RECVERR
	}
	l := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error {
			// Go sets SO_BROADCAST: without it, datagrams to the broadcast address of a
			// host network fail.
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 0); err != nil {
				return err
			}
			return unix.SetsockoptInt(fd, level, option, 1)
		})
	}}
	c, err := l.ListenPacket(n.ctx, network, "")
	if err != nil {
		n.log.Debug("user network: a datagram of the guest's", "err", err)
		return false
	}
	m.conn = c.(*net.UDPConn)
	if m.raw, err = m.conn.SyscallConn(); err != nil {
		m.conn.Close()
		return false
	}
	return true
}

// control calls f with a connection's descriptor.
func control(c syscall.RawConn, f func(fd int) error) (err error) {
	if cerr := c.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// removeMapping ends a mapping with its flows. flows.mu is held.
func (s *flows) removeMapping(m *mapping) {
	if m.ended {
		return
	}
	m.ended = true
	if l := s.own.parties[m.from]; l != nil {
		for e := l.Back(); e != nil; e = l.Back() {
			s.remove(e.Value.(*flow))
		}
	}
	if s.mappings[m.from] == m {
		delete(s.mappings, m.from)
	}
	m.age.remove()
	s.dead = append(s.dead, m)
}

// id returns netstack's name for the flow of a peer, whose address the guest knows as
// name.
func (m *mapping) id(name netip.Addr, port uint16) stack.TransportEndpointID {
	return stack.TransportEndpointID{
		LocalAddress: tcpipAddress(name), LocalPort: port,
		RemoteAddress: tcpipAddress(m.from.Addr()), RemotePort: m.from.Port(),
	}
}

// received returns the guest's name for the sender of a datagram, and the flow if there
// is one. It returns false for a sender that is not allowed.
func (s *flows) received(m *mapping, from netip.AddrPort) (name netip.AddrPort, f *flow, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := m.peers[from.Addr()]
	if k == nil || m.ended {
		return name, nil, false
	}
	if f = s.byID[m.id(k.name, from.Port())]; f != nil && f.via == m {
		s.touch(f)
	}
	return netip.AddrPortFrom(k.name, from.Port()), f, true
}

// receiveMapping moves datagrams from peers to the guest, until the mapping ends.
func (n *Network) receiveMapping(m *mapping) {
	var size int
	var from unix.Sockaddr
	var err error
	var b *[maxPacket]byte
	read := func(fd uintptr) bool {
		b = datagrams.Get().(*[maxPacket]byte)
		for {
			if size, from, err = unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT); err != unix.EINTR {
				break
			}
		}
		if err == unix.EAGAIN {
			datagrams.Put(b)
			n.receiveErrors(m, int(fd))
			return false
		}
		return true
	}
	for m.raw.Read(read) == nil {
		if err == nil {
			if name, _, ok := n.flows.received(m, addrPort(from)); ok {
				n.writeUDP(name, m.from, b[:size])
			}
		}
		datagrams.Put(b)
	}
}

// addrPort converts the kernel's address to Go's.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// receiveErrors passes ICMP errors of the socket on to the guest: IP_RECVERR in ip(7).
// They do not end a mapping (RFC 4787 §10). It is called within a read of the socket,
// which Close waits for.
func (n *Network) receiveErrors(m *mapping, fd int) {
	var b [1]byte
	var oob [256]byte
	for {
		_, size, _, to, err := unix.Recvmsg(fd, b[:], oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		kind, code, ok := unreachable(oob[:size])
		if !ok {
			continue
		}
		if name, f, ok := n.flows.received(m, addrPort(to)); ok && f != nil {
			n.writeUnreachable(name.Addr(), m.from.Addr(), kind, code, f.quote)
		}
	}
}

// unreachable finds an ICMP or ICMPv6 destination-unreachable message in control
// messages with a struct sock_extended_err, and returns its type and code.
func unreachable(oob []byte) (kind, code byte, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, 0, false
	}
	for _, m := range messages {
		if len(m.Data) < 8 || m.Header.Level != unix.SOL_IP && m.Header.Level != unix.SOL_IPV6 {
			continue
		}
		errno := unix.Errno(binary.NativeEndian.Uint32(m.Data))
		origin, kind, code := m.Data[4], m.Data[5], m.Data[6]
		switch {
		case origin == unix.SO_EE_ORIGIN_ICMP && kind == byte(header.ICMPv4DstUnreachable) && errno != unix.EMSGSIZE,
			origin == unix.SO_EE_ORIGIN_ICMP6 && kind == byte(header.ICMPv6DstUnreachable):
			return kind, code, true
		}
	}
	return 0, 0, false
}

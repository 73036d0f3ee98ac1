package usernet

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Ports of the gateway's that those of the host who send datagrams to a forward
// get, one each.
const (
	firstForwardPort = 49152
	forwardPorts     = 65536 - firstForwardPort
)

// published is a port of the host's in one life of the guest.
type published struct {
	Forward
	raw syscall.RawConn // of UDP

	pool  pool                     // of UDP; guarded by flows.mu, as is all below
	peers map[netip.AddrPort]*flow // by who sends
}

// forwardAll has ports lead to the guest.
func (n *Network) forwardAll(p *Ports) error {
	if p == nil {
		return nil
	}
	for _, h := range p.list {
		if err := n.forward(h); err != nil {
			return err
		}
	}
	return nil
}

// forward has a port that is listened to lead to the guest.
func (n *Network) forward(h heldPort) error {
	p := &published{Forward: h.Forward, pool: newPool(maxPeers), peers: map[netip.AddrPort]*flow{}}
	n.ports = append(n.ports, p)
	l, c, err := h.dup()
	if err != nil {
		return err
	}
	if p.UDP {
		if p.raw, err = c.SyscallConn(); err != nil {
			c.Close()
			return err
		}
		if !n.keep(c) {
			return net.ErrClosed
		}
		n.start(func() {
			defer n.forget(c)
			n.serveDatagrams(c, p)
		})
		return nil
	}
	if !n.keep(l) {
		return net.ErrClosed
	}
	n.start(func() {
		defer n.forget(l)
		n.serveConnections(l, p)
	})
	return nil
}

// serveConnections has those who connect to a port be connected to the guest.
func (n *Network) serveConnections(l *net.TCPListener, p *published) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no file descriptor left, say
			if !n.pause() {
				return
			}
			continue
		}
		begun(c)
		if !n.keep(c) {
			return
		}
		who := n.peer(p, c)
		if !n.beginFor(who) {
			n.forget(c)
			continue
		}
		n.config.Owner.Go(func() { n.serveForward(c, who) })
	}
}

// serveForward connects c to the guest. A guest that does not answer is waited
// for as long as n.s.dialTimeout.
func (n *Network) serveForward(c *net.TCPConn, who holder) {
	defer n.endFor(who)
	defer n.forget(c)
	g, p, err := n.bindGuest(who.port.Guest)
	if err == nil {
		n.keepalives.add(p, g, c)
		defer n.keepalives.remove(p)
		err = g.dial(p.guest, n.s.dialTimeout)
	}
	if err != nil {
		n.log.Debug("user network: a connection to the guest", "port", who.port.Guest, "err", err)
		reset(c)
		return
	}
	n.relay(g, c)
}

// serveDatagrams moves datagrams to the guest. Its answers go to the flow of the
// port that they are sent to.
func (n *Network) serveDatagrams(c *net.UDPConn, p *published) {
	to := netip.AddrPortFrom(Guest, p.Guest)
	b := new([maxPacket]byte)
	for {
		size, from, err := c.ReadFromUDPAddrPort(b[:])
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if !n.pause() {
				return
			}
			continue
		}
		f := n.flows.arrived(p, from)
		if f == nil {
			if f = n.newPeer(p, from); f == nil {
				continue
			}
		}
		_, name := endpoints(f.id)
		n.writeUDP(name, to, b[:size])
	}
}

// arrived returns the flow of who sends to a port, or nil.
func (s *flows) arrived(p *published, from netip.AddrPort) *flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := p.peers[from]
	if f != nil {
		s.touch(f)
	}
	return f
}

// newPeer makes a flow with the guest for who sends to a port, or returns nil. It is
// brief until the guest answers: senders may be made up.
func (n *Network) newPeer(p *published, from netip.AddrPort) *flow {
	f := &flow{peer: from, sa: sockaddr(from), to: p, party: party(from.Addr())}
	for range 64 { // or all ports that are tried have flows
		f.id = stack.TransportEndpointID{
			LocalAddress: tcpipAddress(Gateway), LocalPort: uint16(firstForwardPort + rand.IntN(forwardPorts)),
			RemoteAddress: tcpipAddress(Guest), RemotePort: p.Guest,
		}
		if n.flows.add(f, true) {
			return f
		}
	}
	return nil
}

// zone returns the index of the interface that a link-local address is of.
func zone(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	i, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0
	}
	return uint32(i.Index)
}

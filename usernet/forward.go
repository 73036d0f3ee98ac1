package usernet

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Gateway ports that stand for the peers that send datagrams to a forward, one each.
const (
	firstForwardPort = 49152
	forwardPorts     = 65536 - firstForwardPort
)

// published is a published host port in one life of the guest.
type published struct {
	Forward
	raw syscall.RawConn // of UDP

	pool  pool                     // of UDP; guarded by flows.mu, as is all below
	peers map[netip.AddrPort]*flow // by sender
}

// forwardAll starts forwarding all ports to the guest.
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

// forward starts forwarding a bound port to the guest.
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

// serveConnections connects clients of a port to the guest.
func (n *Network) serveConnections(l *net.TCPListener, p *published) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // for example, no file descriptor left
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

// serveForward connects c to the guest. It waits up to n.s.dialTimeout for the guest to
// answer.
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

// serveDatagrams moves datagrams to the guest. The gateway port that the guest answers
// to tells the flow.
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

// arrived returns the flow of a sender to a port, or nil.
func (s *flows) arrived(p *published, from netip.AddrPort) *flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := p.peers[from]
	if f != nil {
		s.touch(f)
	}
	return f
}

// newPeer makes a flow for a sender to a port, or returns nil. The flow is brief until
// the guest answers: sender addresses may be forged.
func (n *Network) newPeer(p *published, from netip.AddrPort) *flow {
	f := &flow{peer: from, sa: sockaddr(from), to: p, party: party(from.Addr())}
	for range 64 { // give up if all ports tried have flows
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

// zone returns the interface index of a link-local address.
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

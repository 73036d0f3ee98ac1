package usernet

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Ports of the gateway's that those of the host who send datagrams to a forward
// get, one each.
const (
	firstForwardPort = 49152
	forwardPorts     = 65536 - firstForwardPort
)

// forward listens on the host.
func (n *Network) forward(f Forward) error {
	f.Listen = netip.AddrPortFrom(f.Listen.Addr().Unmap(), f.Listen.Port())
	var err error
	if f.UDP {
		err = n.forwardUDP(&f)
	} else {
		err = n.forwardTCP(&f)
	}
	if err != nil {
		return explainListen(f, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forwarded = append(n.forwarded, f)
	return nil
}

// explainListen says what to do about an error of forward.
func explainListen(f Forward, err error) error {
	proto := "tcp"
	if f.UDP {
		proto = "udp"
	}
	name := fmt.Sprintf("forward %s %s port %d", proto, f.Listen.Addr(), f.Listen.Port())
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s: in use: choose another", name)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: not allowed to this user: choose one from 1024 on", name)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s: no address of this host: choose one of `ip address`", name)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// family is the end of Go's name for a network of the address's family: 0.0.0.0 is
// all of IPv4 and nothing of IPv6, and :: the reverse.
func family(a netip.AddrPort) string {
	if a.Addr().Is4() {
		return "4"
	}
	return "6"
}

func (n *Network) forwardTCP(f *Forward) error {
	l, err := net.ListenTCP("tcp"+family(f.Listen), net.TCPAddrFromAddrPort(f.Listen))
	if err != nil {
		return err
	}
	if !n.keep(l) {
		return net.ErrClosed
	}
	f.Listen = netip.AddrPortFrom(f.Listen.Addr(), l.Addr().(*net.TCPAddr).AddrPort().Port())
	guest := f.Guest
	n.start(func() {
		defer n.forget(l)
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
			if !n.keep(c) {
				return
			}
			if !n.begin() {
				n.forget(c)
				continue
			}
			n.config.Owner.Go(func() { n.serveForward(c, guest) })
		}
	})
	return nil
}

// serveForward connects c to the guest. A guest that does not answer is waited
// for as long as dialGuest does.
func (n *Network) serveForward(c *net.TCPConn, port uint16) {
	defer n.end()
	defer n.forget(c)
	g, err := n.dialGuest(port)
	if err != nil {
		n.log.Debug("user network: a connection to the guest", "port", port, "err", err)
		reset(c)
		return
	}
	n.relay(g, c)
}

func (n *Network) forwardUDP(f *Forward) error {
	c, err := net.ListenUDP("udp"+family(f.Listen), net.UDPAddrFromAddrPort(f.Listen))
	if err != nil {
		return err
	}
	if !n.keep(c) {
		return net.ErrClosed
	}
	f.Listen = netip.AddrPortFrom(f.Listen.Addr(), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	guest := f.Guest
	n.start(func() {
		defer n.forget(c)
		n.serveDatagrams(c, guest)
	})
	return nil
}

// peer is who sends datagrams to a forward.
type peer struct {
	flow  *flow
	from  netip.AddrPort // the gateway's port that stands for it
	ended atomic.Bool    // the flow
}

// serveDatagrams moves datagrams to the guest. Its answers go to the flow of the
// port that they are sent to.
func (n *Network) serveDatagrams(c *net.UDPConn, port uint16) {
	to := netip.AddrPortFrom(Guest, port)
	peers := map[netip.AddrPort]*peer{}
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
		p := peers[from]
		if p == nil || p.ended.Load() {
			if p = n.newPeer(c, from, to); p == nil {
				continue
			}
			if len(peers) >= 2*maxFlows {
				maps.DeleteFunc(peers, func(_ netip.AddrPort, p *peer) bool { return p.ended.Load() })
			}
			peers[from] = p
		}
		p.flow.touch()
		n.writeUDP(p.from, to, b[:size])
	}
}

// newPeer makes a flow with the guest for who sends from an address, or returns
// nil.
func (n *Network) newPeer(c *net.UDPConn, from, guest netip.AddrPort) *peer {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(from.Port())}
	if a := from.Addr(); a.Is4() {
		sa.(*unix.SockaddrInet4).Addr = a.As4()
	} else {
		sa = &unix.SockaddrInet6{Port: int(from.Port()), Addr: a.As16(), ZoneId: zone(a)}
	}
	p := &peer{flow: &flow{}}
	p.flow.send = func(b []byte) { sendNow(raw, b, sa) }
	p.flow.close = func() { p.ended.Store(true) }
	for range 64 { // or all ports that are tried have flows
		p.from = netip.AddrPortFrom(Gateway, uint16(firstForwardPort+rand.IntN(forwardPorts)))
		if n.flows.add(stack.TransportEndpointID{
			LocalAddress: tcpipAddress(Gateway), LocalPort: p.from.Port(),
			RemoteAddress: tcpipAddress(Guest), RemotePort: guest.Port(),
		}, p.flow) {
			return p
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

package usernet

import (
	"net"
	"net/netip"
)

// shares divide the connections to published ports among those who make them. Who
// has much, and is at a port that has much, gets no more once that is three times
// what is left: one peer alone may have three fifths, and there is always something
// left for another peer, and another port.
type shares struct {
	size, held int
	ports      map[*published]int
	peers      map[holder]int
}

// holder is who has connections: a peer at a port.
type holder struct {
	port *published
	peer netip.AddrPort // as party has it
}

func newShares(size int) shares {
	return shares{size: size, ports: map[*published]int{}, peers: map[holder]int{}}
}

func (s *shares) take(h holder) bool {
	if s.ports[h.port]+s.peers[h] >= 3*(s.size-s.held) {
		return false
	}
	s.held++
	s.ports[h.port]++
	s.peers[h]++
	return true
}

func (s *shares) give(h holder) {
	s.held--
	if s.ports[h.port]--; s.ports[h.port] == 0 {
		delete(s.ports, h.port)
	}
	if s.peers[h]--; s.peers[h] == 0 {
		delete(s.peers, h)
	}
}

// peer is who has connected to a port.
func (n *Network) peer(p *published, c *net.TCPConn) holder {
	return holder{p, party(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())}
}

// beginFor takes one of the connections to published ports, until endFor; it returns
// false if there is none left for who wants it, and after Close.
func (n *Network) beginFor(h holder) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || !n.shares.take(h) {
		return false
	}
	n.tasks.Add()
	return true
}

func (n *Network) endFor(h holder) {
	n.mu.Lock()
	n.shares.give(h)
	n.mu.Unlock()
	n.tasks.Done()
}

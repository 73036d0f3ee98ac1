package usernet

import (
	"net"
	"net/netip"
)

// shares divides the connections to published ports among peers. A peer gets no more
// once what it holds plus what its port holds is three times what is left: a single
// peer may have three fifths, and there is always something left for another peer and
// another port.
type shares struct {
	size, held int
	ports      map[*published]int
	peers      map[holder]int
}

// holder is a peer that has connections to a port.
type holder struct {
	port *published
	peer netip.AddrPort // as returned by party
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

// peer returns the holder of a connection to a port.
func (n *Network) peer(p *published, c *net.TCPConn) holder {
	return holder{p, party(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())}
}

// beginFor takes one of the connections to published ports, until endFor. It returns
// false if none is left for the holder, and after Close.
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

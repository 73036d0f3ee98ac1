package usernet

import (
	"container/list"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// flow is a pair of ports that exchange datagrams: one of the guest, and one of another
// host. They are sent through a mapping, if the guest sent first, or through a
// published port.
type flow struct {
	id    stack.TransportEndpointID // netstack's name for the pair
	peer  netip.AddrPort            // the other host, as this host knows it
	sa    unix.Sockaddr             // the same
	via   *mapping                  // or nil
	to    *published                // or nil
	quote []byte                    // from the guest's first datagram, for ICMP

	checked atomic.Int64 // when the peer was last checked to be one that the guest reaches, in nanoseconds

	party netip.AddrPort // whose budget it counts against; guarded by flows.mu, as is all below
	own   *list.Element  // its place among those of the party
	age   age
	ended bool
}

func (f *flow) pool(s *flows) *pool {
	if f.to != nil {
		return &f.to.pool
	}
	return &s.own
}

// raw returns the socket that sends to the peer.
func (f *flow) raw() syscall.RawConn {
	if f.to != nil {
		return f.to.raw
	}
	return f.via.raw
}

// flows holds all flows.
type flows struct {
	clock *clock

	mu       sync.Mutex
	closed   bool // guarded by mu, as is all below
	byID     map[stack.TransportEndpointID]*flow
	own      pool // of flows that the guest began
	mappings map[netip.AddrPort]*mapping
	ages     ages       // of the mappings
	dead     []*mapping // to be closed by unlock
}

func (s *flows) init(c *clock) {
	s.clock = c
	s.byID, s.mappings = map[stack.TransportEndpointID]*flow{}, map[netip.AddrPort]*mapping{}
	s.own = newPool(maxFlows)
}

// unlock also closes sockets, without the lock: Close waits for their readers, which
// may wait for the lock.
func (s *flows) unlock() {
	dead := s.dead
	s.dead = nil
	s.mu.Unlock()
	for _, m := range dead {
		m.conn.Close()
	}
}

// sent returns the flow of a datagram from the guest, or nil.
func (s *flows) sent(id stack.TransportEndpointID) *flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.byID[id]
	if f != nil {
		s.touch(f)
		if f.to != nil {
			f.to.pool.ages.last(&f.age, s.clock.now()) // the guest has answered
		}
	}
	return f
}

// touch notes that a flow is used. mu is held.
func (s *flows) touch(f *flow) {
	now := s.clock.now()
	f.pool(s).touch(f, now)
	if f.via != nil {
		f.via.age.touch(now)
	}
}

// add adds a flow. It returns false after closeAll, for an id that has a flow, and for
// a mapping that has ended. Brief flows give way first.
func (s *flows) add(f *flow, brief bool) bool {
	s.mu.Lock()
	defer s.unlock()
	if s.closed || s.byID[f.id] != nil || f.via != nil && f.via.ended {
		return false
	}
	p := f.pool(s)
	if f.via != nil {
		f.via.meet(f) // before another flow gives way, perhaps with the mapping
	}
	if old := p.crowded(f.party); old != nil {
		s.remove(old)
	}
	s.byID[f.id] = f
	now := s.clock.now()
	p.add(f, brief, now)
	if f.to != nil {
		f.to.peers[f.peer] = f
	}
	if f.via != nil && !brief {
		s.ages.last(&f.via.age, now)
	}
	return true
}

// end ends a flow.
func (s *flows) end(f *flow) {
	s.mu.Lock()
	defer s.unlock()
	s.remove(f)
}

// endUnused ends a mapping that has no flow.
func (s *flows) endUnused(m *mapping) {
	s.mu.Lock()
	defer s.unlock()
	if len(m.peers) == 0 {
		s.removeMapping(m)
	}
}

// remove ends a flow, and its mapping if it has no other. mu is held.
func (s *flows) remove(f *flow) {
	if f.ended {
		return
	}
	f.ended = true
	delete(s.byID, f.id)
	f.pool(s).remove(f)
	if f.to != nil {
		delete(f.to.peers, f.peer)
	}
	if m := f.via; m != nil && m.part(f) {
		s.removeMapping(m)
	}
}

// expire ends flows that were silent for idle, in the guest's time.
func (s *flows) expire(idle time.Duration, ports []*published) {
	since := s.clock.now() - idle
	s.mu.Lock()
	defer s.unlock()
	s.own.expire(s, since)
	for _, p := range ports {
		p.pool.expire(s, since)
	}
}

// closeAll ends all flows, and lets no more begin.
func (s *flows) closeAll() {
	s.mu.Lock()
	defer s.unlock()
	s.closed = true
	for _, f := range s.byID {
		s.remove(f)
	}
	for _, m := range s.mappings { // those that have no flow yet
		s.removeMapping(m)
	}
}

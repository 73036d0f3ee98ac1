package usernet

import (
	"container/list"
	"net/netip"
	"time"
)

// ages keeps things in the order of their last use. Brief ones give way before all
// others.
type ages struct {
	lasting, brief list.List
}

// age is the place of a thing among others.
type age struct {
	in   *list.List
	at   *list.Element
	used time.Duration // in the guest's time
}

// add adds v, whose age is a, as used now.
func (s *ages) add(v any, a *age, brief bool, now time.Duration) {
	a.in = &s.lasting
	if brief {
		a.in = &s.brief
	}
	a.at, a.used = a.in.PushFront(v), now
}

func (a *age) touch(now time.Duration) {
	a.used = now
	a.in.MoveToFront(a.at)
}

// last marks a thing that is used now as lasting if it was brief.
func (s *ages) last(a *age, now time.Duration) {
	if a.in == &s.brief {
		v := a.in.Remove(a.at)
		s.add(v, a, false, now)
	}
}

func (a *age) remove() { a.in.Remove(a.at) }

// oldest returns the thing that gives way first, or nil.
func (s *ages) oldest() any {
	for _, l := range []*list.List{&s.brief, &s.lasting} {
		if e := l.Back(); e != nil {
			return e.Value
		}
	}
	return nil
}

// pool is a budget of flows, and the parties that hold them. No party gets more than is
// left for others, and when nothing is left, the flow that was silent longest gives
// way. So no party can take it all, and a new one finds room.
type pool struct {
	size, held int
	ages       ages // of flows
	parties    map[netip.AddrPort]*list.List
}

func newPool(size int) pool { return pool{size: size, parties: map[netip.AddrPort]*list.List{}} }

// party returns the party that counts for an address that sends to a guest port. For
// IPv6 it is the /64 network: each host may have 2^64 addresses (RFC 6177).
func party(a netip.Addr) netip.AddrPort {
	if a.Is6() {
		p, _ := a.WithZone("").Prefix(64)
		a = p.Addr()
	}
	return netip.AddrPortFrom(a, 0)
}

// crowded returns the flow that gives way to one more flow of a party, or nil.
func (p *pool) crowded(who netip.AddrPort) *flow {
	left := p.size - p.held
	if l := p.parties[who]; l != nil && l.Len() >= left {
		return l.Back().Value.(*flow)
	}
	if left <= 0 {
		f, _ := p.ages.oldest().(*flow)
		return f
	}
	return nil
}

// add counts a flow.
func (p *pool) add(f *flow, brief bool, now time.Duration) {
	l := p.parties[f.party]
	if l == nil {
		l = list.New()
		p.parties[f.party] = l
	}
	f.own = l.PushFront(f)
	p.ages.add(f, &f.age, brief, now)
	p.held++
}

// touch notes that a flow is used.
func (p *pool) touch(f *flow, now time.Duration) {
	f.age.touch(now)
	p.parties[f.party].MoveToFront(f.own)
}

func (p *pool) remove(f *flow) {
	l := p.parties[f.party]
	l.Remove(f.own)
	if l.Len() == 0 {
		delete(p.parties, f.party)
	}
	f.age.remove()
	p.held--
}

// expire ends the flows not used after since. flows.mu is held.
func (p *pool) expire(s *flows, since time.Duration) {
	for _, l := range []*list.List{&p.ages.brief, &p.ages.lasting} {
		for e := l.Back(); e != nil && e.Value.(*flow).age.used <= since; e = l.Back() {
			s.remove(e.Value.(*flow))
		}
	}
}

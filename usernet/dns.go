package usernet

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const dnsPort = 53

// maxServers is how many resolvers are asked, as in libc.
const maxServers = 3

// handleDNS takes a query from the guest. Send calls it; it does not block.
func (n *Network) handleDNS(from, to netip.AddrPort, query []byte) {
	answer, ok := refusal(query, false)
	if answer != nil {
		n.writeUDP(to, from, answer)
	}
	if answer != nil || !ok {
		return
	}
	select {
	case n.queries <- struct{}{}:
	default:
		return // too many: the guest will retry
	}
	query = append([]byte(nil), query...)
	if !n.start(func() {
		defer func() { <-n.queries }()
		r := n.resolve(query, n.askUDP)
		if r.answer != nil {
			n.writeUDP(to, from, r.answer)
		}
		r.wait() // and count as one query until then
	}) {
		<-n.queries
	}
}

// asker asks a resolver, and returns its answer or nil. err is an error of the
// resolver's host or of the network, nil if it just did not answer.
type asker func(server netip.AddrPort, query []byte, until time.Time) (answer []byte, err error)

// resolution is a query in progress.
type resolution struct {
	n       *Network
	query   []byte
	ask     asker
	until   time.Time
	order   []netip.AddrPort // the resolvers that are left
	replies chan reply
	asked   map[netip.AddrPort]bool // resolvers that have not answered, and whether they are late
	tokens  int                     // of n.queries: one for each in asked, and at least the caller's

	answer []byte // the first good one, else the first, or nil after Close
}

type reply struct {
	from   netip.AddrPort
	answer []byte
	err    error
}

// resolve asks the host's resolvers, each a while after the one before or once that one
// has failed, and returns the first answer, unchanged except for the identifier. So the
// guest, which gives up after 5 s, hears from the last one by then. It returns an error
// answer when no resolver is left that may know better. An answer has the size that the
// guest allowed in its query, or is marked as truncated.
func (n *Network) resolve(query []byte, ask asker) *resolution {
	order, first := n.dns.servers()
	r := &resolution{
		n: n, query: query, ask: ask, until: time.Now().Add(n.s.dnsTimeout), order: order,
		replies: make(chan reply, maxServers), asked: map[netip.AddrPort]bool{}, tokens: 1,
	}
	next := time.NewTimer(n.s.dnsNext)
	defer next.Stop()
	for range first {
		r.start()
	}
	for len(r.asked) > 0 {
		select {
		case a := <-r.replies:
			if r.take(a) {
				return r
			}
			if r.start() {
				next.Reset(n.s.dnsNext)
			}
		case <-next.C:
			for server := range r.asked {
				r.asked[server] = true
			}
			if !r.start() && r.answer != nil && n.dns.areSilent(r.asked) {
				return r
			}
			next.Reset(n.s.dnsNext)
		}
	}
	if r.answer == nil && n.ctx.Err() == nil {
		q, _ := questionOf(query)
		r.answer = response(query, q, rcodeServerFailure)
	}
	return r
}

// start asks the next resolver, if there is one and the bound on queries allows
// another.
func (r *resolution) start() bool {
	if len(r.order) == 0 {
		return false
	}
	if len(r.asked) == r.tokens {
		select {
		case r.n.queries <- struct{}{}:
			r.tokens++
		default:
			return false
		}
	}
	server := r.order[0]
	if !r.n.start(func() {
		answer, err := r.ask(server, r.query, r.until)
		r.replies <- reply{server, answer, err}
	}) {
		r.order = nil
		r.done(server)
		return false
	}
	r.order, r.asked[server] = r.order[1:], false
	return true
}

// take takes a reply, and reports whether it answers the guest. If so, resolvers that
// are late count as silent until they answer.
func (r *resolution) take(a reply) bool {
	r.done(a.from)
	if a.answer == nil {
		if a.err == nil && r.n.ctx.Err() == nil {
			r.n.dns.silent(a.from)
		}
		return false
	}
	r.n.dns.heard(a.from)
	good := !useless(a.answer)
	if good || r.answer == nil {
		r.answer = a.answer
	}
	if good {
		for server, late := range r.asked {
			if late {
				r.n.dns.silent(server)
			}
		}
	}
	return good
}

// wait waits for resolvers that have not answered, to learn which are alive.
func (r *resolution) wait() {
	for len(r.asked) > 0 {
		a := <-r.replies
		r.done(a.from)
		if a.answer != nil {
			r.n.dns.heard(a.from)
		}
	}
}

// done removes a resolver that was asked, and gives back the tokens no longer needed.
func (r *resolution) done(server netip.AddrPort) {
	delete(r.asked, server)
	for r.tokens > max(len(r.asked), 1) {
		<-r.n.queries
		r.tokens--
	}
}

// settle waits, on another goroutine if possible, and then gives the query back.
func (n *Network) settle(r *resolution) {
	f := func() {
		r.wait()
		<-n.queries
	}
	if !n.start(f) {
		f()
	}
}

// renamed returns the query with another identifier, which a forger of answers must
// guess.
func renamed(query []byte) []byte {
	var id [2]byte
	rand.Read(id[:])
	return append(id[:], query[2:]...)
}

// askUDP asks from a new port, which a forger must guess too.
func (n *Network) askUDP(server netip.AddrPort, query []byte, until time.Time) ([]byte, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return nil, err
	}
	if !n.keep(c) {
		return nil, net.ErrClosed
	}
	defer n.forget(c)
	sent := renamed(query)
	c.SetDeadline(until)
	if _, err := c.Write(sent); err != nil {
		return nil, err
	}
	b := datagrams.Get().(*[maxPacket]byte)
	defer datagrams.Put(b)
	for {
		size, err := c.Read(b[:])
		if err != nil {
			return nil, unlessLate(err)
		}
		if answer := b[:size]; answers(answer, sent) {
			answer = append([]byte(nil), answer...)
			copy(answer, query[:2])
			return answer, nil
		}
	}
}

// unlessLate returns nil for a timeout, else err.
func unlessLate(err error) error {
	if e, ok := err.(net.Error); ok && e.Timeout() {
		return nil
	}
	return err
}

// askTCP asks over a connection.
func (n *Network) askTCP(server netip.AddrPort, query []byte, until time.Time) ([]byte, error) {
	c, err := n.dialHost(server, time.Until(until))
	if err != nil {
		return nil, unlessLate(err)
	}
	defer n.forget(c)
	sent := renamed(query)
	c.SetDeadline(until)
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(sent))), sent...)); err != nil {
		return nil, unlessLate(err)
	}
	for {
		answer, err := readMessage(c)
		if err != nil {
			return nil, unlessLate(err)
		}
		if answers(answer, sent) {
			copy(answer, query[:2])
			return answer, nil
		}
	}
}

// readMessage reads one message from a connection (RFC 1035 §4.2.2).
func readMessage(c io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(c, b)
	return b, err
}

// acceptDNS answers the guest's queries over TCP, one after another. It asks the same
// resolvers as over UDP, in the same order: most connections retry a query whose answer
// was too long.
func (n *Network) acceptDNS(r *tcp.ForwarderRequest) {
	g := n.newConn()
	if !g.open(r) {
		return
	}
	g.setOptions(true)
	defer n.linger(g)
	c := gonet.NewTCPConn(&g.queue, g.ep)
	defer n.config.Owner.ContextFunc(n.ctx, g.ep.Abort)()
	idle := n.clock.AfterFunc(n.s.dnsIdle, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer idle.Stop()
	for {
		idle.Reset(n.s.dnsIdle)
		query, err := readMessage(c)
		if err != nil {
			return
		}
		answer, ok := refusal(query, true)
		if !ok {
			return
		}
		var rest *resolution
		if answer == nil {
			select {
			case n.queries <- struct{}{}:
			case <-n.ctx.Done():
				return
			}
			rest = n.resolve(query, n.askTCP)
			answer = rest.answer
		}
		if answer != nil {
			_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
		}
		if rest != nil {
			n.settle(rest)
		}
		if err != nil || answer == nil {
			return
		}
	}
}

package usernet

import (
	"crypto/rand"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const dnsPort = 53

// maxServers is how many resolvers are asked, as libc does.
const maxServers = 3

// handleDNS takes a query of the guest's. It is called by Send, and does not
// block.
func (n *Network) handleDNS(from, to netip.AddrPort, query []byte) {
	if !isQuery(query) {
		return
	}
	select {
	case n.queries <- struct{}{}:
	default:
		return // too many: the guest asks again
	}
	query = append([]byte(nil), query...)
	if !n.start(func() {
		defer func() { <-n.queries }()
		if answer := n.resolve(query); answer != nil {
			n.writeUDP(to, from, answer)
		}
	}) {
		<-n.queries
	}
}

// isQuery reports whether a message is a query that can be understood.
func isQuery(message []byte) bool {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || h.Response {
		return false
	}
	if _, err = p.Question(); err != nil {
		return false
	}
	return p.SkipAllQuestions() == nil
}

// resolve asks the host's resolvers one after another, and returns the first
// answer, as it came but for the identifier. Its size is what the guest allowed
// in its query, or the answer says that it is truncated.
func (n *Network) resolve(query []byte) []byte {
	for _, server := range n.dns.servers() {
		if answer := n.ask(server, query); answer != nil {
			return answer
		}
		if n.ctx.Err() != nil {
			return nil
		}
	}
	return serverFailure(query)
}

// ask returns a server's answer, or nil. The query goes out with another
// identifier, from a port of its own: both must be guessed by who would forge
// the answer.
func (n *Network) ask(server netip.AddrPort, query []byte) []byte {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil || !n.keep(c) {
		return nil
	}
	defer n.forget(c)
	var id [2]byte
	rand.Read(id[:])
	sent := append(id[:], query[2:]...)
	c.SetDeadline(time.Now().Add(n.s.dnsTimeout))
	if _, err := c.Write(sent); err != nil {
		return nil
	}
	b := datagrams.Get().(*[maxPacket]byte)
	defer datagrams.Put(b)
	for {
		size, err := c.Read(b[:])
		if err != nil {
			return nil
		}
		if answer := b[:size]; answers(answer, sent) {
			answer = append([]byte(nil), answer...)
			copy(answer, query[:2])
			return answer
		}
	}
}

// answers reports whether a message is the response to a query: the same
// identifier, and the same question unless it has none, as some errors do.
func answers(message, query []byte) bool {
	var m, q dnsmessage.Parser
	mh, err := m.Start(message)
	if err != nil || !mh.Response {
		return false
	}
	qh, err := q.Start(query)
	if err != nil || mh.ID != qh.ID {
		return false
	}
	want, err := q.Question()
	if err != nil {
		return false
	}
	got, err := m.Question()
	if err == dnsmessage.ErrSectionDone {
		return mh.RCode != dnsmessage.RCodeSuccess
	}
	return err == nil && got.Type == want.Type && got.Class == want.Class && strings.EqualFold(got.Name.String(), want.Name.String())
}

// serverFailure returns the answer to a query that nobody answers.
func serverFailure(query []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true, RCode: dnsmessage.RCodeServerFailure,
	})
	if b.StartQuestions() != nil || b.Question(q) != nil {
		return nil
	}
	answer, err := b.Finish()
	if err != nil {
		return nil
	}
	return answer
}

// dialDNS connects to a resolver of the host's, for queries over TCP: these pass
// as they are.
func (n *Network) dialDNS(a netip.AddrPort) (*net.TCPConn, error) {
	err := error(&net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(a), Err: errRefused})
	if a.Port() != dnsPort {
		return nil, err
	}
	for _, server := range n.dns.servers() {
		var c *net.TCPConn
		if c, err = n.dialHost(server, n.s.dnsTimeout); err == nil {
			return c, nil
		}
	}
	return nil, err
}

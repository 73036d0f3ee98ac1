package usernet

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// resolver is a DNS server on the host's loopback.
type resolver struct {
	udp net.PacketConn
	tcp net.Listener

	mu     sync.Mutex
	silent bool // guarded by mu, as are the next
	liar   bool // answers wrongly first
	large  int  // bytes to add to answers
	ids    []uint16
}

func newResolver(t testing.TB) (*resolver, uint16) {
	t.Helper()
	for range 100 {
		u, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp4", u.LocalAddr().String())
		if err != nil { // taken for TCP
			u.Close()
			continue
		}
		r := &resolver{udp: u, tcp: l}
		go r.serveUDP()
		go r.serveTCP()
		t.Cleanup(func() { u.Close(); l.Close() })
		return r, u.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	}
	t.Fatal("no port is free for both")
	return nil, 0
}

func (r *resolver) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *resolver) serveUDP() {
	b := make([]byte, 65535)
	for {
		n, from, err := r.udp.ReadFrom(b)
		if err != nil {
			return
		}
		r.mu.Lock()
		silent, liar := r.silent, r.liar
		r.ids = append(r.ids, binary.BigEndian.Uint16(b))
		r.mu.Unlock()
		if silent {
			continue
		}
		a := r.answer(b[:n], 53)
		if liar {
			wrong := bytes.Clone(a)
			wrong[0] ^= 1
			r.udp.WriteTo(wrong, from)
			r.udp.WriteTo(b[:n], from) // no response
			r.udp.WriteTo(a[:11], from)
			other, _ := (&dnsmessage.Message{Header: dnsmessage.Header{ID: binary.BigEndian.Uint16(b), Response: true},
				Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("evil.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}).Pack()
			r.udp.WriteTo(other, from)
		}
		r.udp.WriteTo(a, from)
	}
}

func (r *resolver) serveTCP() {
	for {
		c, err := r.tcp.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var size [2]byte
			for {
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				b := make([]byte, binary.BigEndian.Uint16(size[:]))
				io.ReadFull(c, b)
				a := r.answer(b, 35)
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
			}
		}()
	}
}

// answer says that every name is 192.0.2.LAST.
func (r *resolver) answer(query []byte, last byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil {
		return nil
	}
	m.Response = true
	name := m.Questions[0].Name
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET},
		Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, last}},
	}}
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := r.large; n > 0; n -= 200 {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.TXTResource{TXT: []string{strings.Repeat("x", 200)}},
		})
	}
	b, _ := m.Pack()
	return b
}

func testQuery(id uint16) []byte {
	b, _ := (&dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("Example.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}).Pack()
	return b
}

// ask asks over UDP.
func (g *guest) ask(server netip.Addr, query []byte) dnsmessage.Message {
	g.t.Helper()
	c := g.dialUDP(netip.AddrPortFrom(server, 53))
	if _, err := c.Write(query); err != nil {
		g.t.Fatal(err)
	}
	b := make([]byte, 65535)
	n, err := c.Read(b)
	if err != nil {
		g.t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(b[:n]); err != nil || m.ID != binary.BigEndian.Uint16(query) || !m.Response {
		g.t.Fatalf("%+v, %v", m, err)
	}
	return m
}

func isAnswer(m dnsmessage.Message, last byte) bool {
	if len(m.Answers) == 0 {
		return false
	}
	a, ok := m.Answers[0].Body.(*dnsmessage.AResource)
	return ok && a.A == [4]byte{192, 0, 2, last}
}

func newDNS(t *testing.T) (*guest, *resolver) {
	r, port := newResolver(t)
	g := newGuest(t, Config{}, allOffloads, func(s *settings) { s.dnsPort = port })
	return g, r
}

// TestDNS: the default is a resolver on this host, with no resolv.conf.
func TestDNS(t *testing.T) {
	g, r := newDNS(t)
	for i, server := range []netip.Addr{DNS, DNS6} {
		if m := g.ask(server, testQuery(uint16(i))); !isAnswer(m, 53) {
			t.Errorf("%+v", m)
		}
	}
	r.set(func() { r.liar = true })
	if m := g.ask(DNS, testQuery(2)); !isAnswer(m, 53) {
		t.Errorf("a wrong answer is taken: %+v", m)
	}
	r.set(func() { r.large = 10_000 })
	if m := g.ask(DNS, testQuery(3)); len(m.Answers) != 51 {
		t.Errorf("%d answers", len(m.Answers))
	}
	r.set(func() {
		same := 0
		for i, id := range r.ids {
			if int(id) == i {
				same++
			}
		}
		if same == len(r.ids) {
			t.Error("the guest's own identifiers are used")
		}
	})
}

func TestDNSOverTCP(t *testing.T) {
	g, _ := newDNS(t)
	c := g.mustDial(netip.AddrPortFrom(DNS, 53))
	for i := range uint16(3) {
		q := testQuery(i)
		c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		io.ReadFull(c, b)
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil || m.ID != i || !isAnswer(m, 35) {
			t.Errorf("%+v, %v", m, err)
		}
	}
}

// TestResolvers: the next is asked when one is silent, and the file is read again
// when it changes.
func TestResolvers(t *testing.T) {
	g, r := newDNS(t)
	conf := g.net.s.resolvConf
	writeFile(t, conf, "nameserver 127.9.9.9\nnameserver 127.0.0.1\n")
	if m := g.ask(DNS, testQuery(1)); !isAnswer(m, 53) { // nobody listens there
		t.Errorf("%+v", m)
	}
	r.set(func() { r.silent = true })
	start := time.Now()
	if m := g.ask(DNS, testQuery(2)); m.RCode != dnsmessage.RCodeServerFailure || len(m.Questions) != 1 || !m.RecursionAvailable {
		t.Errorf("%+v", m)
	}
	if d := time.Since(start); d < g.net.s.dnsTimeout {
		t.Errorf("given up after %v", d)
	}
	r.set(func() { r.silent = false })
	writeFile(t, conf, "# nothing\n")
	os.Chtimes(conf, time.Time{}, time.Now().Add(time.Hour))
	if m := g.ask(DNS, testQuery(3)); !isAnswer(m, 53) {
		t.Errorf("%+v", m)
	}
}

func TestParseResolvConf(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "127.0.0.1:53",
		"nameserver\nsearch x": "127.0.0.1:53",
		"nameserver nowhere":   "127.0.0.1:53",
		"# nameserver 1.2.3.4\n nameserver\t192.0.2.1 # x\nnameserver fe80::1%lo\noptions": "192.0.2.1:53 [fe80::1%lo]:53",
		"nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4":   "1.1.1.1:53 2.2.2.2:53 3.3.3.3:53",
	} {
		var got []string
		for _, a := range parseResolvConf(text, 53) {
			got = append(got, a.String())
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: %s, want %s", text, s, want)
		}
	}
}

// TestQueries: there are only so many that are not answered yet, and what is no
// query is dropped.
func TestQueries(t *testing.T) {
	g, r := newDNS(t)
	r.set(func() { r.silent = true })
	from, to := netip.AddrPortFrom(Guest, 1000), netip.AddrPortFrom(DNS, 53)
	response := testQuery(1)
	response[2] |= 0x80
	for _, bad := range [][]byte{nil, {1}, make([]byte, 12), testQuery(1)[:20], response} {
		g.send(GatewayMAC, 0x800, udpPacket(from, to, bad))
	}
	if n := len(g.net.queries); n != 0 {
		t.Errorf("%d of what is no query are asked", n)
	}
	for i := range uint16(2 * maxQueries) {
		g.send(GatewayMAC, 0x800, udpPacket(from, to, testQuery(i)))
	}
	if n := len(g.net.queries); n > maxQueries {
		t.Errorf("%d queries", n)
	}
	eventually(t, "queries end", func() bool { return len(g.net.queries) == 0 })
}

package usernet

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
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
	silent bool          // guarded by mu, as are the next
	waits  chan struct{} // if not nil, it answers once this is closed
	liar   bool          // answers wrongly first
	lame   bool          // says only where to ask
	rcode  byte          // and nothing else
	large  int           // bytes to add to answers
	ids    []uint16
	last   byte // of the address that it answers with, over UDP
}

func newResolver(t testing.TB) (*resolver, uint16) {
	t.Helper()
	list, port := newResolvers(t, 1)
	return list[0], port
}

// newResolvers returns n resolvers, at 127.0.0.1 and up, on one port.
func newResolvers(t testing.TB, n int) (list []*resolver, port uint16) {
	t.Helper()
	for range 100 {
		list, port = nil, 0
		for i := range n {
			r := &resolver{last: byte(53 + i)}
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)}), port).String()
			var err error
			if r.udp, err = net.ListenPacket("udp4", at); err != nil {
				break
			}
			t.Cleanup(func() { r.udp.Close() })
			if r.tcp, err = net.Listen("tcp4", r.udp.LocalAddr().String()); err != nil {
				break // taken for TCP
			}
			t.Cleanup(func() { r.tcp.Close() })
			port = r.udp.LocalAddr().(*net.UDPAddr).AddrPort().Port()
			list = append(list, r)
		}
		if len(list) == n {
			for _, r := range list {
				go r.serveUDP()
				go r.serveTCP()
			}
			return list, port
		}
	}
	t.Fatal("no port is free for all")
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
		silent, liar, waits := r.silent, r.liar, r.waits
		r.ids = append(r.ids, binary.BigEndian.Uint16(b))
		r.mu.Unlock()
		if silent {
			continue
		}
		if waits != nil {
			<-waits
		}
		a := r.answer(b[:n], r.last)
		if liar {
			wrong := bytes.Clone(a)
			wrong[0] ^= 1
			r.udp.WriteTo(wrong, from)
			r.udp.WriteTo(b[:n], from) // not a response
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
				r.set(func() { r.ids = append(r.ids, binary.BigEndian.Uint16(b)) })
				a := r.answer(b, r.last-18)
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
			}
		}()
	}
}

// answer answers that every name is 192.0.2.LAST.
func (r *resolver) answer(query []byte, last byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	q, ok := questionOf(query)
	if !ok {
		return nil
	}
	a := response(query, q, r.rcode)
	switch {
	case r.lame:
		a[3] &^= flagRA
		a[9] = 1 // name server
		return append(a, 0xc0, 12, 0, 2, 0, 1, 0, 0, 0, 0, 0, 2, 0xc0, 12)
	case r.rcode != 0:
		return a
	}
	a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, last)
	a[7]++
	for n := r.large; n > 0; n -= 200 {
		a = append(append(a, 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, 201, 200), strings.Repeat("x", 200)...)
		a[7]++
	}
	return a
}

func testQuery(id uint16) []byte {
	b, _ := (&dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("Example.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}).Pack()
	return b
}

// ask sends a query over UDP.
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

// TestDNS: without resolv.conf, the default is a resolver on this host.
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

// askTCP sends a query over TCP.
func (g *guest) askTCP(server netip.Addr, query []byte) (m dnsmessage.Message) {
	g.t.Helper()
	c := g.mustDial(netip.AddrPortFrom(server, 53))
	defer c.Close()
	c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...))
	b, err := readMessage(c)
	if err == nil {
		err = m.Unpack(b)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return m
}

// query returns a query for a name with these labels.
func query(labels ...string) []byte {
	b := []byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, l := range labels {
		b = append(append(b, byte(len(l))), l...)
	}
	return append(b, 0, 0, 1, 0, 1)
}

// TestNames: labels may contain any bytes and be as long as DNS allows. A message
// that is not a query, or not a DNS message, is answered as such and not passed on.
func TestNames(t *testing.T) {
	g, r := newDNS(t)
	long := strings.Repeat("x", 63)
	update := query("zone", "test")
	update[2] = 5 << 3
	notify := query("zone", "test")
	notify[2] = 4 << 3
	two := query("a", "test")
	two[5] = 2
	response := query("a", "test")
	response[2] |= flagQR
	transfer := query("zone", "test")
	transfer[len(transfer)-3] = typeAXFR
	for _, test := range []struct {
		name     string
		query    []byte
		rcode    byte
		rcodeTCP byte
	}{
		{"underscores", query("_sip", "_tcp", "example_1", "test"), 0, 0},
		{"upper case", query("ExAmPlE", "TEST"), 0, 0},
		{"a dot", query("my printer v1.0", "_ipp", "test"), 0, 0},
		{"binary", query("\x00\xff\x80[]\\", "test"), 0, 0},
		{"long", query(long, long, long, long[:61]), 0, 0},
		{"too long", query(long, long, long, long[:62]), 1, 1},
		{"the root", query(), 0, 0},
		{"a pointer", append(query()[:12], 0xc0, 12, 0, 1, 0, 1), 1, 1},
		{"cut", query("a", "test")[:15], 1, 1},
		{"two questions", two, 1, 1},
		{"an update", update, 4, 4},
		{"a notification", notify, 4, 4},
		{"a transfer", transfer, 0, 5},
	} {
		for _, tcp := range []bool{false, true} {
			var before, after int
			r.set(func() { before = len(r.ids) })
			answer := exchangeDNS(t, g, test.query, tcp)
			r.set(func() { after = len(r.ids) })
			want := test.rcode
			if tcp {
				want = test.rcodeTCP
			}
			if len(answer) < 12 || string(answer[:2]) != string(test.query[:2]) || answer[2] != test.query[2]|flagQR || answer[3]&flagRCode != want {
				t.Errorf("%s, TCP %v: % x", test.name, tcp, answer)
				continue
			}
			if want == 0 && (answer[7] == 0 || string(answer[12:len(test.query)]) != string(test.query[12:])) {
				t.Errorf("%s, TCP %v: no answer: % x", test.name, tcp, answer)
			}
			if (after > before) != (want == 0) {
				t.Errorf("%s, TCP %v: passed on %d times", test.name, tcp, after-before)
			}
		}
	}
	if _, ok := refusal(response, false); ok {
		t.Error("a response is answered")
	}
}

// exchangeDNS sends a message and returns the answer.
func exchangeDNS(t *testing.T, g *guest, message []byte, tcp bool) []byte {
	t.Helper()
	if !tcp {
		c := g.dialUDP(netip.AddrPortFrom(DNS, 53))
		c.Write(message)
		b := make([]byte, 65535)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}
	c := g.mustDial(netip.AddrPortFrom(DNS, 53))
	defer c.Close()
	c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	b, err := readMessage(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestQueries: the number of pending queries, each with a socket, is bounded,
// whatever the number of resolvers. Anything that is not a query is dropped.
func TestQueries(t *testing.T) {
	list, port := newResolvers(t, 3)
	g := newGuest(t, Config{}, allOffloads, func(s *settings) {
		s.dnsPort, s.dnsTimeout, s.dnsNext = port, deadline/5, 20*time.Millisecond
	})
	writeFile(t, g.net.s.resolvConf, "nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n")
	for _, r := range list {
		r.set(func() { r.silent = true })
	}
	from, to := netip.AddrPortFrom(Guest, 1000), netip.AddrPortFrom(DNS, 53)
	response := testQuery(1)
	response[2] |= 0x80
	for _, bad := range [][]byte{nil, {1}, make([]byte, 11), testQuery(1)[:20], response} {
		g.send(GatewayMAC, 0x800, udpPacket(from, to, bad))
	}
	if n := len(g.net.queries); n != 0 {
		t.Errorf("%d of what is no query are asked", n)
	}
	for i := range uint16(maxQueries / 2) {
		g.send(GatewayMAC, 0x800, udpPacket(from, to, testQuery(i)))
	}
	sockets, most := 0, 0
	sample := func() bool {
		g.net.mu.Lock()
		sockets = len(g.net.sockets)
		g.net.mu.Unlock()
		most = max(most, sockets)
		return sockets > maxQueries*3/4
	}
	eventually(t, "most ask two", sample)
	for i := range uint16(maxQueries) {
		g.send(GatewayMAC, 0x800, udpPacket(from, to, testQuery(i)))
		sample()
	}
	eventually(t, "queries end", func() bool { sample(); return len(g.net.queries) == 0 })
	if most > maxQueries {
		t.Errorf("%d sockets", most)
	}
}

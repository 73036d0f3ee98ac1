package usernet

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestResolvers: the guest is told when all resolvers are silent. The file is read
// again when it changes or is replaced.
func TestResolvers(t *testing.T) {
	g, r := newDNS(t)
	conf := g.net.s.resolvConf
	writeFile(t, conf, "nameserver 127.9.9.9\nnameserver 127.0.0.1\n")
	if m := g.ask(DNS, testQuery(1)); !isAnswer(m, 53) { // nothing listens there
		t.Errorf("%+v", m)
	}
	r.set(func() { r.silent = true })
	g.net.s.dnsTimeout = 300 * time.Millisecond
	start := time.Now()
	if m := g.ask(DNS, testQuery(2)); m.RCode != dnsmessage.RCodeServerFailure || len(m.Questions) != 1 || !m.RecursionAvailable {
		t.Errorf("%+v", m)
	}
	if d := time.Since(start); d < g.net.s.dnsTimeout {
		t.Errorf("given up after %v", d)
	}
	g.net.s.dnsTimeout = 10 * time.Second
	r.set(func() { r.silent = false })
	info, err := os.Stat(conf)
	if err != nil {
		t.Fatal(err)
	}
	// Same size and time, as written by a tool that restores one of two files.
	writeFile(t, conf+".new", "nameserver 127.9.9.9\nnameserver 127.9.9.9\n")
	os.Chtimes(conf+".new", time.Time{}, info.ModTime())
	os.Rename(conf+".new", conf)
	if m := g.ask(DNS, testQuery(3)); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("%+v", m)
	}
	writeFile(t, conf, "# nothing\n")
	if m := g.ask(DNS, testQuery(3)); !isAnswer(m, 53) {
		t.Errorf("%+v", m)
	}
}

// TestNextResolver: another resolver is asked when one is silent, absent or useless.
// When all are useless, the guest gets the first one's answer.
func TestNextResolver(t *testing.T) {
	if d := defaults; 2*d.dnsNext >= d.dnsTimeout || d.dnsTimeout >= 5*time.Second {
		t.Errorf("the last of three is asked after %v, and all are waited for %v; a guest gives up after 5 s", 2*d.dnsNext, d.dnsTimeout)
	}
	for _, tcp := range []bool{false, true} {
		list, port := newResolvers(t, 3)
		g := newGuest(t, Config{}, allOffloads, func(s *settings) { s.dnsPort, s.dnsTimeout, s.dnsNext = port, 10*time.Second, 50*time.Millisecond })
		writeFile(t, g.net.s.resolvConf, "nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n")
		for name, change := range map[string]func(r *resolver){
			"silent":          func(r *resolver) { r.silent = true },
			"server failure":  func(r *resolver) { r.rcode = 2 },
			"not implemented": func(r *resolver) { r.rcode = 4 },
			"refused":         func(r *resolver) { r.rcode = 5 },
			"lame":            func(r *resolver) { r.lame = true },
		} {
			if tcp && name == "silent" {
				continue // see below, over UDP
			}
			for bad := range 3 {
				for i, r := range list {
					r.set(func() {
						r.silent, r.rcode, r.lame = false, 0, false
						if i < bad {
							change(r)
						}
					})
				}
				g.net.dns.mu.Lock()
				clear(g.net.dns.quiet)
				g.net.dns.mu.Unlock()
				g.net.s.dnsNext = time.Hour
				if name == "silent" {
					g.net.s.dnsNext = 50 * time.Millisecond
				}
				ask, last := g.ask, byte(53+bad)
				if tcp {
					ask, last = g.askTCP, last-18
				}
				m := ask(DNS, testQuery(7))
				if !isAnswer(m, last) && !(name == "silent" && isAnswer(m, last+1)) { // the silent one was too slow
					t.Errorf("%s, the first %d of 3, TCP %v: %+v", name, bad, tcp, m)
				}
			}
		}
		for i, r := range list {
			r.set(func() { r.silent, r.lame, r.rcode = false, false, []byte{5, 4, 2}[i] })
		}
		if m := g.ask(DNS, testQuery(7)); m.RCode != 5 {
			t.Errorf("%+v", m)
		}
	}
}

// TestSilentResolver: a resolver that was silent is asked last for a while, until it
// is heard again.
func TestSilentResolver(t *testing.T) {
	list, port := newResolvers(t, 2)
	g := newGuest(t, Config{}, allOffloads, func(s *settings) { s.dnsPort, s.dnsTimeout, s.dnsNext = port, 10*time.Second, 50*time.Millisecond })
	writeFile(t, g.net.s.resolvConf, "nameserver 127.0.0.1\nnameserver 127.0.0.2\n")
	asked := func() (n int) {
		list[0].set(func() { n = len(list[0].ids) })
		return n
	}
	list[0].set(func() { list[0].silent = true })
	for i := range uint16(3) {
		if m := g.ask(DNS, testQuery(i)); !isAnswer(m, 54) {
			t.Errorf("%+v", m)
		}
		g.net.s.dnsNext = time.Hour
	}
	if n := asked(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	g.net.dns.mu.Lock()
	for a := range g.net.dns.quiet {
		g.net.dns.quiet[a] = time.Now() // due for a retry
	}
	g.net.dns.mu.Unlock()
	for i := range uint16(3) {
		if m := g.ask(DNS, testQuery(i)); !isAnswer(m, 54) {
			t.Errorf("%+v", m)
		}
	}
	eventually(t, "who was silent is tried", func() bool { return asked() > 1 })
	list[1].set(func() { list[1].rcode = 2 }) // asked last, and answers
	list[0].set(func() { list[0].silent = false })
	if m := g.ask(DNS, testQuery(5)); !isAnswer(m, 53) {
		t.Errorf("%+v", m)
	}
	list[1].set(func() { list[1].rcode = 0 })
	if m := g.ask(DNS, testQuery(6)); !isAnswer(m, 53) {
		t.Errorf("who answers again is not asked first: %+v", m)
	}
}

// TestSlowResolver: an error is no answer while another resolver may know better.
func TestSlowResolver(t *testing.T) {
	list, port := newResolvers(t, 2)
	g := newGuest(t, Config{}, allOffloads, func(s *settings) { s.dnsPort, s.dnsNext = port, 10*time.Millisecond })
	writeFile(t, g.net.s.resolvConf, "nameserver 127.0.0.1\nnameserver 127.0.0.2\n")
	late := make(chan struct{})
	list[0].set(func() { list[0].rcode = 2 })
	list[1].set(func() { list[1].waits = late })
	time.AfterFunc(10*g.net.s.dnsNext, func() { close(late) })
	if m := g.ask(DNS, testQuery(1)); !isAnswer(m, 54) {
		t.Errorf("%+v", m)
	}
	// A resolver that was silent before is not waited for.
	list[1].set(func() { list[1].silent = true })
	g.net.dns.silent(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port))
	start := time.Now()
	if m := g.ask(DNS, testQuery(2)); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("%+v", m)
	}
	if d := time.Since(start); d >= g.net.s.dnsTimeout {
		t.Errorf("after %v", d)
	}
}

func TestParseResolvConf(t *testing.T) {
	for _, test := range []struct{ text, servers, search string }{
		{"", "127.0.0.1:53", "corp.example"},
		{"nameserver\nsearch x", "127.0.0.1:53", "x"},
		{"nameserver nowhere", "127.0.0.1:53", "corp.example"},
		{"# nameserver 1.2.3.4\n nameserver\t192.0.2.1 # x\nnameserver fe80::1%lo\noptions", "192.0.2.1:53 [fe80::1%lo]:53", "corp.example"},
		{"nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4", "1.1.1.1:53 2.2.2.2:53 3.3.3.3:53", "corp.example"},
		{"domain a.test\nsearch b.test. c.test b.test\n", "127.0.0.1:53", "b.test c.test"},
		{"search b.test\ndomain a.test. x\n", "127.0.0.1:53", "a.test"},
		{"search .\n", "127.0.0.1:53", ""},
		{"search a..b -ok_1.test \x01bad b\u00fccher.test " + strings.Repeat("x", 64) + ".test " + strings.Repeat("x.", 130), "127.0.0.1:53", "-ok_1.test"},
	} {
		c := parseResolvConf(test.text, "host.corp.example", 53)
		var got []string
		for _, a := range c.servers {
			got = append(got, a.String())
		}
		if s := strings.Join(got, " "); s != test.servers || strings.Join(c.search, " ") != test.search {
			t.Errorf("%q: %s, %q; want %s, %q", test.text, s, c.search, test.servers, test.search)
		}
	}
}

package main

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"vmm/machine"
)

func TestNetFlag(t *testing.T) {
	user := machine.Net{}
	for _, test := range []struct {
		texts []string
		want  []machine.Net
		err   string // part of it; "" for none
	}{
		{nil, []machine.Net{user}, ""},
		{[]string{"none"}, nil, ""},
		{[]string{"none", "none"}, nil, ""},
		{[]string{"user"}, []machine.Net{user}, ""},
		{[]string{"user", "tap=tap0"}, []machine.Net{user, {Tap: "tap0"}}, ""},
		{[]string{"tap=t,mac=52:54:00:12:34:56,queues=4,pcap=a,,b.pcap"}, []machine.Net{{Tap: "t", MAC: "52:54:00:12:34:56", Queues: 4, PCAP: "a,b.pcap"}}, ""},
		{[]string{"user,rate=10M,packets=1000,burst=50ms,host-loopback"}, []machine.Net{{BytesPerSecond: 10 << 20, FramesPerSecond: 1000, Burst: 50 * time.Millisecond, HostLoopback: true}}, ""},
		{[]string{"user,rate=0"}, []machine.Net{user}, ""}, // no limit, like rate=0M
		{[]string{""}, nil, "is user, tap=NAME or none"},
		{[]string{"tap"}, nil, "is user, tap=NAME or none"},
		{[]string{"bridge"}, nil, "is user, tap=NAME or none"},
		{[]string{"user=x"}, nil, "is user, tap=NAME or none"},
		{[]string{"none,mac=x"}, nil, "is user, tap=NAME or none"},
		{[]string{"none", "user"}, nil, "beside none"},
		{[]string{"user", "none"}, nil, "none beside another"},
		{[]string{"user,ques=2"}, nil, "did you mean queues?"},
		{[]string{"user,zzzzzz"}, nil, "there are mac, queues"},
		{[]string{"user,queues=0"}, nil, "from 1 on"},
		{[]string{"user,rate=10"}, nil, "has no unit"},
		{[]string{"user,packets=-1"}, nil, "from 1 on"},
		{[]string{"user,burst=1"}, nil, "a time such as 100ms"},
		{[]string{"user,pcap="}, nil, "has no file"},
		{[]string{"user,host-loopback=maybe"}, nil, "on or off"},
	} {
		var n nets
		var err error
		for _, text := range test.texts {
			if err == nil {
				err = n.Set(text)
			}
		}
		got, _ := n.complete(nil)
		switch {
		case test.err != "":
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: error %v, want %q", test.texts, err, test.err)
			}
		case err != nil || len(got) != len(test.want) || len(got) > 0 && !reflect.DeepEqual(got, test.want):
			t.Errorf("%q: %+v, %v; want %+v", test.texts, got, err, test.want)
		}
	}
}

func TestPublishFlag(t *testing.T) {
	for _, test := range []struct {
		text string
		want machine.Forward
		err  string
	}{
		{"2222:22", machine.Forward{Listen: netip.MustParseAddrPort("127.0.0.1:2222"), Guest: 22}, ""},
		{"0:22/tcp", machine.Forward{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 22}, ""},
		{"0.0.0.0:80:8080", machine.Forward{Listen: netip.MustParseAddrPort("0.0.0.0:80"), Guest: 8080}, ""},
		{"127.0.0.1:5353:53/udp", machine.Forward{UDP: true, Listen: netip.MustParseAddrPort("127.0.0.1:5353"), Guest: 53}, ""},
		{"[::1]:80:80", machine.Forward{Listen: netip.MustParseAddrPort("[::1]:80"), Guest: 80}, ""},
		{"80", machine.Forward{}, "must be [ADDRESS:]HOST-PORT:GUEST-PORT"},
		{"", machine.Forward{}, "must be [ADDRESS:]HOST-PORT:GUEST-PORT"},
		{"80:0", machine.Forward{}, "guest's port"},
		{"80:65536", machine.Forward{}, "guest's port"},
		{"70000:80", machine.Forward{}, "host's address"},
		{"localhost:80:80", machine.Forward{}, "host's address"},
		{"::1:80:80", machine.Forward{}, "host's address"},
		{"80:80/sctp", machine.Forward{}, "the protocol is tcp or udp"},
	} {
		var p publish
		err := p.Set(test.text)
		switch {
		case test.err != "":
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q: error %v, want %q", test.text, err, test.err)
			}
		case err != nil || !reflect.DeepEqual(p, publish{test.want}):
			t.Errorf("%q: %+v, %v; want %+v", test.text, p, err, test.want)
		}
	}
}

// TestPublish: published ports go to the first card in user mode.
func TestPublish(t *testing.T) {
	forwards := []machine.Forward{{Guest: 22}}
	for _, test := range []struct {
		nets []string
		card int // the card with the ports; -1 for an error
	}{{nil, 0}, {[]string{"tap=t", "user", "user"}, 1}, {[]string{"none"}, -1}, {[]string{"tap=t"}, -1}} {
		var n nets
		for _, text := range test.nets {
			if err := n.Set(text); err != nil {
				t.Fatal(err)
			}
		}
		list, err := n.complete(forwards)
		if test.card < 0 {
			if err == nil || !strings.Contains(err.Error(), "--publish") {
				t.Errorf("%v: %v", test.nets, err)
			}
			continue
		}
		for i, c := range list {
			if (len(c.Forwards) == 1) != (i == test.card) {
				t.Errorf("%v: card %d forwards %v", test.nets, i, c.Forwards)
			}
		}
	}
}

func FuzzNetFlag(f *testing.F) {
	f.Add("user,mac=52:54:00:12:34:56,rate=1M", "2222:22")
	f.Add("tap=tap0,queues=2,pcap=x", "[::1]:1:1/udp")
	f.Fuzz(func(t *testing.T, net, ports string) {
		var n nets
		if n.Set(net) == nil && !n.set {
			t.Errorf("%q: %+v", net, n)
		}
		var p publish
		if p.Set(ports) == nil && (len(p) != 1 || p[0].Guest == 0 || !p[0].Listen.IsValid()) {
			t.Errorf("%q: %+v", ports, p)
		}
	})
}

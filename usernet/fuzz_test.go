package usernet

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"vmm/ethernet"
)

// drain is a guest that takes everything and answers nothing.
type drain struct {
	t    testing.TB
	net  *Network
	room [][]byte
}

func (d *drain) Readable(int) bool {
	var h ethernet.Header
	for {
		n, err := d.net.Receive(0, &h, d.room)
		if err != nil {
			return true
		}
		needs, ok := h.Needs()
		if !ok || needs&^d.net.current() != 0 || n < ethernet.HeaderLen || n > ethernet.MaxFrame {
			d.t.Errorf("a frame of %d bytes with the header % x", n, h)
		}
	}
}

func (*drain) Writable(int) {}

// FuzzFrame: nothing that the guest sends causes a panic, and its driver accepts what
// comes back. The input is several frames, each preceded by its length and a header.
// Nothing leaves netstack except queries to 127.0.0.1.
func FuzzFrame(f *testing.F) {
	add := func(frames ...[]byte) {
		var b []byte
		for _, frame := range frames {
			b = binary.LittleEndian.AppendUint16(b, uint16(ethernet.HeaderSize+len(frame)))
			b = append(append(b, make([]byte, ethernet.HeaderSize)...), frame...)
		}
		f.Add(uint8(allOffloads), b)
		f.Add(uint8(0), b)
	}
	frame := func(proto uint16, packet []byte) []byte {
		return append(binary.BigEndian.AppendUint16(append(GatewayMAC[:], guestMAC[:]...), proto), packet...)
	}
	guest, gateway := netip.AddrPortFrom(Guest, 1000), netip.AddrPortFrom(Gateway, 1)
	arp := []byte{0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 1, 2, 3, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2}
	add(frame(0x806, arp), frame(0x800, synPacket(guest, gateway)), frame(0x800, synPacket(guest, gateway)))
	add(frame(0x806, arp), frame(0x800, udpPacket(guest, gateway, []byte("hello"))), frame(0x800, udpPacket(guest, netip.AddrPortFrom(DNS, 53), testQuery(1))))
	discover, _ := dhcpv4.NewDiscovery(guestMAC[:])
	add(frame(0x800, udpPacket(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), discover.ToBytes())))
	add(frame(0x86dd, newAdvertisement(nil)), frame(0x86dd, append([]byte{0x60, 0, 0, 0, 0, 8, 58, 255, 0xfe, 0x80, 15: 0, 23: 21, 24: 0xff, 25: 2, 39: 2}, 133, 0, 0, 0, 0, 0, 0, 0)))
	ping := append(udpPacket(guest, gateway, nil)[:20], 8, 0, 0xf7, 0xff, 0, 0, 0, 0)
	ping[9] = 1
	add(frame(0x806, arp), frame(0x800, ping))

	n, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { n.Close() })
	n.dns.path = "" // 127.0.0.1
	offline(f)
	f.Fuzz(func(t *testing.T, mode uint8, frames []byte) {
		n.Configure(ethernet.Mode{Pairs: 1, Offload: ethernet.Offload(mode) & allOffloads})
		n.Start(&drain{t, n, [][]byte{make([]byte, 3), make([]byte, ethernet.MaxFrame)}})
		defer n.Stop()
		for len(frames) > 2+ethernet.HeaderSize {
			size := min(int(binary.LittleEndian.Uint16(frames)), len(frames)-2)
			one := frames[2 : 2+size]
			frames = frames[2+size:]
			if len(one) < ethernet.HeaderSize {
				continue
			}
			h := ethernet.Header(one)
			one = one[ethernet.HeaderSize:]
			n.Send(0, &h, [][]byte{one[:len(one)/2], one[len(one)/2:]})
		}
		if g := runtime.NumGoroutine(); g > 3*maxMappings+2*maxConnections {
			t.Errorf("%d goroutines", g)
		}
	})
}

// offline makes the network refuse all addresses.
func offline(tb testing.TB) {
	before := never
	never = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	tb.Cleanup(func() { never = before })
}

// FuzzDHCP: every reply is a valid BOOTREPLY.
func FuzzDHCP(f *testing.F) {
	discover, _ := dhcpv4.NewDiscovery(guestMAC[:])
	offer, _ := dhcpv4.NewReplyFromRequest(discover, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithYourIP(Guest.AsSlice()))
	request, _ := dhcpv4.NewRequestFromOffer(offer)
	inform, _ := dhcpv4.NewInform(guestMAC[:], Guest.AsSlice())
	for _, m := range []*dhcpv4.DHCPv4{discover, offer, request, inform} {
		f.Add(m.ToBytes())
	}
	n, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { n.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		n.handleDHCP(b)
		reply := dhcpReply(b, []string{"corp.example", strings.Repeat("x", 60) + ".test"})
		if reply == nil {
			return
		}
		if m, err := dhcpv4.FromBytes(reply); err != nil || m.OpCode != dhcpv4.OpcodeBootReply {
			t.Errorf("%v, %v", m, err)
		}
	})
}

// FuzzDNS: both the guest's queries and a resolver's messages.
func FuzzDNS(f *testing.F) {
	f.Add(testQuery(1), testQuery(2))
	f.Add(testQuery(1), (&resolver{}).answer(testQuery(1), 1))
	f.Add(query("a.b", "\xff"), response(query("a.b", "\xff"), nil, rcodeServerFailure))
	f.Fuzz(func(t *testing.T, query, answer []byte) {
		refused, ok := refusal(query, false)
		if !ok || refused != nil {
			if ok != (len(query) >= dnsHeader && query[2]&flagQR == 0) || ok && !answers(refused, query) {
				t.Errorf("% x is no answer to % x", refused, query)
			}
			return
		}
		if answers(query, query) {
			t.Error("a query is its own answer")
		}
		if q, ok := questionOf(query); !ok || !answers(response(query, q, rcodeServerFailure), query) {
			t.Errorf("no answer to % x", query)
		}
		if answers(answer, query) {
			useless(answer)
		}
	})
}

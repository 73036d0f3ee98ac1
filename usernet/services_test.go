package usernet

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"vmm/ethernet"
)

// exchange sends a DHCP message, and returns the answer and the frame that carries
// it.
func exchange(t *testing.T, g *guest, src, dst netip.Addr, m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, []byte) {
	t.Helper()
	frames := make(chan []byte, 1)
	g.sniff(func(b []byte) bool {
		if ip := header.IPv4(b[ethernet.HeaderLen:]); header.Ethernet(b).Type() == header.IPv4ProtocolNumber && ip.Protocol() == 17 {
			frames <- b
			return true
		}
		return false
	})
	mac := ethernet.Broadcast
	if dst == Gateway {
		mac = GatewayMAC
	}
	g.send(mac, header.IPv4ProtocolNumber, udpPacket(netip.AddrPortFrom(src, 68), netip.AddrPortFrom(dst, 67), m.ToBytes()))
	b := receive(t, "an answer of DHCP", frames)
	ip := header.IPv4(b[ethernet.HeaderLen:])
	u := header.UDP(ip.Payload())
	if !ip.IsChecksumValid() || !u.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksum.Checksum(u.Payload(), 0)) {
		t.Error("wrong checksum")
	}
	r, err := dhcpv4.FromBytes(u.Payload())
	if err != nil {
		t.Fatal(err)
	}
	if r.TransactionID != m.TransactionID || !bytes.Equal(r.ClientHWAddr, m.ClientHWAddr) {
		t.Errorf("an answer to another: %v", r.Summary())
	}
	return r, b
}

// TestDHCP does what a client does, and checks the answers.
func TestDHCP(t *testing.T) {
	g := newGuest(t, Config{}, allOffloads, nil)
	mac := net.HardwareAddr(guestMAC[:])
	unspecified, all := netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255")
	discover, _ := dhcpv4.NewDiscovery(mac)
	offer, b := exchange(t, g, unspecified, all, discover)
	if offer.MessageType() != dhcpv4.MessageTypeOffer || ethernet.MAC(b) != ethernet.Broadcast {
		t.Errorf("%v", offer.Summary())
	}
	request, _ := dhcpv4.NewRequestFromOffer(offer)
	ack, _ := exchange(t, g, unspecified, all, request)
	for _, r := range []*dhcpv4.DHCPv4{offer, ack} {
		mtu := r.Options.Get(dhcpv4.OptionInterfaceMTU)
		if r.YourIPAddr.String() != "10.0.2.15" || r.SubnetMask().String() != "ffffff00" || len(r.Router()) != 1 || r.Router()[0].String() != "10.0.2.2" ||
			len(r.DNS()) != 1 || r.DNS()[0].String() != "10.0.2.3" || r.IPAddressLeaseTime(0) != 24*time.Hour || !bytes.Equal(mtu, []byte{5, 220}) ||
			r.ServerIdentifier().String() != "10.0.2.2" {
			t.Errorf("%v", r.Summary())
		}
	}
	if ack.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("%v", ack.Summary())
	}
	renew, _ := dhcpv4.NewRenewFromAck(ack)
	r, b := exchange(t, g, Guest, Gateway, renew)
	if r.MessageType() != dhcpv4.MessageTypeAck || ethernet.MAC(b) != guestMAC || header.IPv4(b[14:]).DestinationAddress() != tcpipAddress(Guest) {
		t.Errorf("%v", r.Summary())
	}
	request.UpdateOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 168, 0, 1)))
	if r, _ = exchange(t, g, unspecified, all, request); r.MessageType() != dhcpv4.MessageTypeNak || r.YourIPAddr.String() != "0.0.0.0" {
		t.Errorf("%v", r.Summary())
	}
	inform, _ := dhcpv4.NewInform(mac, Guest.AsSlice())
	if r, _ = exchange(t, g, Guest, all, inform); r.MessageType() != dhcpv4.MessageTypeAck || r.YourIPAddr.String() != "0.0.0.0" || r.IPAddressLeaseTime(0) != 0 || len(r.DNS()) != 1 {
		t.Errorf("%v", r.Summary())
	}
	release, _ := dhcpv4.NewReleaseFromACK(ack)
	other, _ := dhcpv4.NewRequestFromOffer(offer, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 2, 9))))
	for _, m := range []*dhcpv4.DHCPv4{release, other} {
		if r := dhcpReply(m.ToBytes(), nil); r != nil {
			t.Errorf("an answer to %v", m.Summary())
		}
	}
}

// TestAdvertisement: a router solicitation is answered with what SLAAC needs.
func TestAdvertisement(t *testing.T) {
	g := newGuest(t, Config{}, 0, nil)
	frames := make(chan []byte, 10)
	g.sniff(func(b []byte) bool {
		if len(b) > 54 && b[54] == byte(header.ICMPv6RouterAdvert) {
			frames <- b
		}
		return false
	})
	solicit := make([]byte, 48)
	src, dst := tcpipAddress(netip.MustParseAddr("fe80::15")), header.IPv6AllRoutersLinkLocalMulticastAddress
	header.IPv6(solicit).Encode(&header.IPv6Fields{PayloadLength: 8, TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 255, SrcAddr: src, DstAddr: dst})
	solicit[40] = byte(header.ICMPv6RouterSolicit)
	header.ICMPv6(solicit[40:]).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: solicit[40:], Src: src, Dst: dst}))
	g.send(ethernet.MAC{0x33, 0x33, 0, 0, 0, 2}, header.IPv6ProtocolNumber, solicit)
	b := receive(t, "a router advertisement", frames)
	if ethernet.MAC(b) != (ethernet.MAC{0x33, 0x33, 0, 0, 0, 1}) || ethernet.MAC(b[6:]) != GatewayMAC {
		t.Errorf("link header % x", b[:14])
	}
	ip := header.IPv6(b[14:])
	icmp := header.ICMPv6(ip.Payload())
	if sum := checksum.Checksum(icmp, header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(icmp)))); sum != 0xffff || ip.HopLimit() != 255 {
		t.Errorf("checksum %#x, hop limit %d", sum, ip.HopLimit())
	}
	ra := header.NDPRouterAdvert(icmp.MessageBody())
	if ra.RouterLifetime() != 30*time.Minute || ra.ManagedAddrConfFlag() || ra.OtherConfFlag() {
		t.Errorf("% x", []byte(ra))
	}
	if s := options(t, ra); s != "mac prefix dns" {
		t.Errorf("options: %s; % x", s, []byte(ra))
	}
	unasked := newGuest(t, Config{}, 0, func(s *settings) { s.advertise = 10 * time.Millisecond })
	unasked.sniff(func(b []byte) bool {
		if len(b) > 54 && b[54] == byte(header.ICMPv6RouterAdvert) {
			select {
			case frames <- b:
			default:
			}
		}
		return false
	})
	receive(t, "an advertisement that nobody asked for", frames)
}

// options lists the router advertisement's options that are right.
func options(t *testing.T, ra header.NDPRouterAdvert) string {
	it, err := ra.Options().Iter(true)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for {
		o, done, err := it.Next()
		if err != nil || done {
			break
		}
		switch o := o.(type) {
		case header.NDPPrefixInformation:
			if o.OnLinkFlag() && o.AutonomousAddressConfigurationFlag() && o.Subnet().String() == "fd00:0:0:2::/64" {
				found = append(found, "prefix")
			}
		case header.NDPRecursiveDNSServer:
			if a, err := o.Addresses(); err == nil && len(a) == 1 && address(a[0]) == DNS6 {
				found = append(found, "dns")
			}
		case header.NDPDNSSearchList:
			if names, err := o.DomainNames(); err == nil {
				found = append(found, names...)
			}
		case header.NDPSourceLinkLayerAddressOption:
			if ethernet.MAC([]byte(o.EthernetAddress())) == GatewayMAC {
				found = append(found, "mac")
			}
		}
	}
	return strings.Join(found, " ")
}

// TestResolution: ARP and NDP answer only for the gateway and the DNS server, because
// a guest checks whether its own address is taken.
func TestResolution(t *testing.T) {
	g := newGuest(t, Config{}, 0, nil)
	answers := make(chan netip.Addr, 20)
	g.sniff(func(b []byte) bool {
		switch header.Ethernet(b).Type() {
		case header.ARPProtocolNumber:
			a, _ := netip.AddrFromSlice(header.ARP(b[14:]).ProtocolAddressSender())
			answers <- a
		case header.IPv6ProtocolNumber:
			if m := header.ICMPv6(header.IPv6(b[14:]).Payload()); m.Type() == header.ICMPv6NeighborAdvert {
				answers <- address(header.NDPNeighborAdvert(m.MessageBody()).TargetAddress())
			}
		}
		return true
	})
	ask := func(a netip.Addr) {
		if a.Is4() {
			arp := make(header.ARP, header.ARPSize)
			arp.SetIPv4OverEthernet()
			arp.SetOp(header.ARPRequest)
			copy(arp.HardwareAddressSender(), guestMAC[:])
			copy(arp.ProtocolAddressTarget(), a.AsSlice())
			g.send(ethernet.Broadcast, header.ARPProtocolNumber, arp)
			return
		}
		b := make([]byte, 40+24)
		src, dst := header.IPv6Any, header.SolicitedNodeAddr(tcpipAddress(a))
		header.IPv6(b).Encode(&header.IPv6Fields{PayloadLength: 24, TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 255, SrcAddr: src, DstAddr: dst})
		m := header.ICMPv6(b[40:])
		m.SetType(header.ICMPv6NeighborSolicit)
		header.NDPNeighborSolicit(m.MessageBody()).SetTargetAddress(tcpipAddress(a))
		m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: src, Dst: dst}))
		g.send(ethernet.MAC{0x33, 0x33, 0xff, 0, 0, 2}, header.IPv6ProtocolNumber, b)
	}
	for _, mine := range []netip.Addr{Gateway, DNS, Gateway6, DNS6, routerLinkLocal} {
		for _, others := range []string{"10.0.2.15", "10.0.2.4", "192.0.2.1", "fd00:0:0:2::15", "fe80::15", "2001:db8::1"} {
			ask(netip.MustParseAddr(others))
		}
		ask(mine)
		if got := receive(t, "an answer", answers); got != mine {
			t.Errorf("asked for %v, an answer for %v", mine, got)
		}
	}
}

// TestSearch: the guest is told the host's search domains, as many as fit. A list
// that is too long breaks nothing.
func TestSearch(t *testing.T) {
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("domain-%d.of.a.long.list.example", i))
	}
	big := strings.Repeat(strings.Repeat("x", 60)+".", 4) + "test"
	for _, test := range []struct {
		name, text string
		domain     string
		list       []string // start of option 119
		least      int      // minimum number of domains
	}{
		{"none", "nameserver 192.0.2.1", "", nil, 0},
		{"one", "search corp.test", "corp.test", []string{"corp.test"}, 1},
		{"domain", "domain corp.test", "corp.test", []string{"corp.test"}, 1},
		{"two", "search corp.test example.org", "corp.test", []string{"corp.test", "example.org"}, 2},
		{"many", "search " + strings.Join(many, " "), many[0], many[:5], 5},
		{"big", "search " + big + " " + big + "s corp.test", "", []string{big}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t, Config{}, 0, nil)
			writeFile(t, g.net.s.resolvConf, test.text+"\n")
			discover, _ := dhcpv4.NewDiscovery(guestMAC[:])
			offer, b := exchange(t, g, netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), discover)
			var list []string
			if o := offer.DomainSearch(); o != nil {
				list = o.Labels
			}
			if offer.DomainName() != test.domain || len(list) < test.least || !slices.Equal(list[:min(len(list), len(test.list))], test.list) {
				t.Errorf("domain %q, search %q", offer.DomainName(), list)
			}
			if size := len(b) - 14; size > 576 || offer.YourIPAddr.String() != "10.0.2.15" {
				t.Errorf("%d bytes; every client takes 576 and needs no more", size)
			}
			ra := header.NDPRouterAdvert(header.ICMPv6(newAdvertisement(g.net.dns.search())[40:]).MessageBody())
			got := strings.Fields(options(t, ra))
			if names := got[3:]; !slices.Equal(names[:min(len(names), len(test.list))], test.list) || len(names) < test.least {
				t.Errorf("advertised: %q", got)
			}
			if n := len(newAdvertisement(g.net.dns.search())); n > MTU {
				t.Errorf("an advertisement of %d bytes", n)
			}
		})
	}
	// A client whose own options leave little room.
	request, _ := dhcpv4.NewDiscovery(guestMAC[:], dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, bytes.Repeat([]byte{1}, 200))))
	if n := len(dhcpReply(request.ToBytes(), many)); n > minDHCP {
		t.Errorf("%d bytes", n)
	}
	request.UpdateOption(dhcpv4.OptMaxMessageSize(1500))
	if n := len(dhcpReply(request.ToBytes(), many)); n > maxDHCP {
		t.Errorf("%d bytes", n)
	}
}

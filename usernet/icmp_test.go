package usernet

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// TestPing: the gateway, the DNS server and, if the kernel lets us ping it, this host
// answer. An unreachable address does not.
func TestPing(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, 0, nil)
	type reply struct {
		from netip.Addr
		body string
	}
	replies := make(chan reply, 10)
	g.sniff(func(b []byte) bool {
		switch header.Ethernet(b).Type() {
		case header.IPv4ProtocolNumber:
			ip := header.IPv4(b[14:])
			if m := header.ICMPv4(ip.Payload()); ip.Protocol() == 1 && m.Type() == header.ICMPv4EchoReply {
				if checksum.Checksum(m, 0) != 0xffff {
					t.Error("wrong checksum")
				}
				replies <- reply{address(ip.SourceAddress()), string(m[4:])}
			}
		case header.IPv6ProtocolNumber:
			ip := header.IPv6(b[14:])
			if m := header.ICMPv6(ip.Payload()); ip.NextHeader() == 58 && m.Type() == header.ICMPv6EchoReply {
				replies <- reply{address(ip.SourceAddress()), string(m[4:])}
			}
		}
		return false
	})
	sequence := uint16(0)
	ask := func(to netip.Addr) string {
		sequence++
		return g.ping(to, sequence)
	}
	expect := []netip.Addr{Gateway, DNS, Gateway6, DNS6}
	for _, own := range ownAddresses() {
		c, err := dialICMP(own)
		if err != nil {
			t.Logf("not tried: a ping of %v: %v", own, err)
			continue
		}
		c.Close()
		expect = append(expect, own)
	}
	for _, a := range expect {
		for _, silent := range []string{"127.0.0.1", "10.0.2.99", "169.254.1.1", "fd00:0:0:2::99", "::1"} {
			ask(netip.MustParseAddr(silent))
		}
		want := ask(a)
		if got := receive(t, "an echo of "+a.String(), replies); got.from != a || got.body != want {
			t.Errorf("%v: %v %q, want %q", a, got.from, got.body, want)
		}
	}
}

// ping sends an echo request, and returns its identifier and everything after it.
func (g *guest) ping(to netip.Addr, sequence uint16) string {
	m := binary.BigEndian.AppendUint16([]byte{8, 0, 0, 0, 0x12, 0x34}, sequence)
	m = append(m, "payload"...)
	b := make([]byte, 20)
	if to.Is4() {
		header.IPv4(b).Encode(&header.IPv4Fields{TotalLength: uint16(20 + len(m)), TTL: 64, Protocol: 1, SrcAddr: tcpipAddress(Guest), DstAddr: tcpipAddress(to)})
		header.IPv4(b).SetChecksum(^header.IPv4(b).CalculateChecksum())
		header.ICMPv4(m).SetChecksum(^checksum.Checksum(m, 0))
	} else {
		m[0] = 128
		b = make([]byte, 40)
		src, dst := tcpipAddress(guest6), tcpipAddress(to)
		header.IPv6(b).Encode(&header.IPv6Fields{PayloadLength: uint16(len(m)), TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 64, SrcAddr: src, DstAddr: dst})
		header.ICMPv6(m).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: src, Dst: dst}))
	}
	g.send(GatewayMAC, protocol(to), append(b, m...))
	return string(m[4:])
}

// ownAddresses returns this host's addresses that a guest may reach.
func ownAddresses() (own []netip.Addr) {
	list, _ := net.InterfaceAddrs()
	n := &Network{config: Config{HostLoopback: true}}
	for _, l := range list {
		if p, err := netip.ParsePrefix(l.String()); err == nil {
			if _, ok := n.host(p.Addr()); ok {
				own = append(own, p.Addr())
			}
		}
	}
	return own
}

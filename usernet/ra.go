package usernet

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// routerLinkLocal is the gateway's address as a router.
var routerLinkLocal = netip.MustParseAddr("fe80::2")

// Lifetimes in advertisements, in seconds.
const (
	routerLifetime = 1800
	prefixLifetime = 86400
)

// maxDNSSL bounds the domains in an advertisement, so that it fits into a frame.
const maxDNSSL = 1024

// newAdvertisement makes a router advertisement (RFC 4861 §4.2) with a prefix for
// addresses (SLAAC), the DNS server (RFC 8106 §5.1), and as many of the search domains
// (§5.2) as fit.
func newAdvertisement(search []string) []byte {
	be := binary.BigEndian
	icmp := make([]byte, header.ICMPv6HeaderSize, 128)
	icmp[0] = byte(header.ICMPv6RouterAdvert)
	icmp = append(icmp, 64, 0)                          // hop limit, no flags
	icmp = be.AppendUint16(icmp, routerLifetime)        //
	icmp = append(icmp, 0, 0, 0, 0, 0, 0, 0, 0)         // the guest chooses its timers
	icmp = append(append(icmp, 1, 1), GatewayMAC[:]...) // source link-layer address
	icmp = be.AppendUint32(append(icmp, 5, 1, 0, 0), MTU)

	prefix := Subnet6.Addr().As16()
	icmp = append(icmp, 3, 4, byte(Subnet6.Bits()), 0xc0) // on link, autonomous
	icmp = be.AppendUint32(icmp, prefixLifetime)
	icmp = be.AppendUint32(icmp, prefixLifetime)
	icmp = append(append(icmp, 0, 0, 0, 0), prefix[:]...)

	dns := DNS6.As16()
	icmp = be.AppendUint32(append(icmp, 25, 3, 0, 0), routerLifetime)
	icmp = append(icmp, dns[:]...)
	if list := appendDomains(nil, search, maxDNSSL); len(list) > 0 {
		list = append(list, make([]byte, (8-len(list)%8)%8)...)
		icmp = be.AppendUint32(append(icmp, 31, byte(1+len(list)/8), 0, 0), routerLifetime)
		icmp = append(icmp, list...)
	}

	b := make([]byte, header.IPv6MinimumSize, header.IPv6MinimumSize+len(icmp))
	src, dst := tcpipAddress(routerLinkLocal), header.IPv6AllNodesMulticastAddress
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength:     uint16(len(icmp)),
		TransportProtocol: header.ICMPv6ProtocolNumber,
		HopLimit:          header.NDPHopLimit,
		SrcAddr:           src,
		DstAddr:           dst,
	})
	header.ICMPv6(icmp).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: icmp[:header.ICMPv6HeaderSize], Src: src, Dst: dst,
		PayloadCsum: checksum.Checksum(icmp[header.ICMPv6HeaderSize:], 0), PayloadLen: len(icmp) - header.ICMPv6HeaderSize,
	}))
	return append(b, icmp...)
}

// advertise sends a router advertisement to all nodes.
func (n *Network) advertise() {
	const allNodes = tcpip.LinkAddress("\x33\x33\x00\x00\x00\x01")
	n.stack.WritePacketToRemote(nicID, allNodes, header.IPv6ProtocolNumber, buffer.MakeWithData(newAdvertisement(n.dns.search())))
}

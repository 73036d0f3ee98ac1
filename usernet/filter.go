package usernet

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"vmm/ethernet"
)

// admit reports whether netstack gets a frame from the guest: the link header, and a
// packet. Netstack stands in for every address, and would answer ARP and NDP requests
// for the guest's own.
func (n *Network) admit(link, packet []byte) bool {
	dst := ethernet.MAC(link)
	if dst != GatewayMAC && !dst.Multicast() {
		return false
	}
	switch header.Ethernet(link).Type() {
	case header.IPv4ProtocolNumber:
		// Netstack would drop loopback packets too, but log them to stderr.
		const loopback = 127
		if len(packet) < header.IPv4MinimumSize || packet[12] == loopback || packet[16] == loopback {
			return false
		}
		n.keepalives.see(packet)
		return true
	case header.ARPProtocolNumber:
		arp := header.ARP(packet)
		return len(packet) >= header.ARPSize && (arp.Op() != header.ARPRequest || local(address(tcpip.AddrFrom4Slice(arp.ProtocolAddressTarget()))))
	case header.IPv6ProtocolNumber:
		if len(packet) < header.IPv6MinimumSize || !n.admitNDP(header.IPv6(packet)) {
			return false
		}
		n.keepalives.see(packet)
		return true
	}
	return false
}

// admitNDP answers router solicitations, and drops messages that only routers send. A
// guest that hides these behind extension headers harms only itself.
func (n *Network) admitNDP(ip header.IPv6) bool {
	icmp := header.ICMPv6(ip[header.IPv6MinimumSize:])
	if ip.NextHeader() != uint8(header.ICMPv6ProtocolNumber) || len(icmp) < header.ICMPv6MinimumSize {
		return true
	}
	switch icmp.Type() {
	case header.ICMPv6RouterSolicit:
		n.advertise()
		return false
	case header.ICMPv6RouterAdvert, header.ICMPv6RedirectMsg:
		return false
	case header.ICMPv6NeighborSolicit:
		return len(icmp) >= header.ICMPv6NeighborSolicitMinimumSize &&
			local(address(header.NDPNeighborSolicit(icmp.MessageBody()).TargetAddress()))
	}
	return true
}

// local reports whether an address is the gateway's or the DNS server's.
func local(a netip.Addr) bool {
	return a == Gateway || a == DNS || a == Gateway6 || a == DNS6 || a == routerLinkLocal
}

// isDNS reports whether an address is the DNS server's.
func isDNS(a netip.Addr) bool { return a == DNS || a == DNS6 }

// neighbour reports whether an address may be the guest's. Other source addresses get
// no answer: netstack would have to resolve each.
func neighbour(a netip.Addr) bool {
	return (Subnet.Contains(a) || Subnet6.Contains(a) || a.IsLinkLocalUnicast() && a.Is6()) && !local(a)
}

// address converts netstack's address to Go's.
func address(a tcpip.Address) netip.Addr {
	if a.Len() == header.IPv4AddressSize {
		return netip.AddrFrom4(a.As4())
	}
	return netip.AddrFrom16(a.As16())
}

// tcpipAddress is the inverse of address.
func tcpipAddress(a netip.Addr) tcpip.Address {
	if a.Is4() {
		return tcpip.AddrFrom4(a.As4())
	}
	return tcpip.AddrFrom16(a.As16())
}

func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

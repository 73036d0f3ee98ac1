package usernet

import (
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// lease is the lease time of the guest's address. No other client can get it.
const lease = 24 * time.Hour

const (
	dhcpServerPort = 67
	dhcpClientPort = 68

	// Offsets in a message.
	dhcpClientAddress = 12 // ciaddr
	dhcpClientMAC     = 28 // chaddr

	// maxDHCP bounds a reply, which copies some of the request's options. A longer one
	// does not fit into a frame.
	maxDHCP = MTU - header.IPv4MinimumSize - header.UDPMinimumSize
	// minDHCP is the size that every client accepts (RFC 2131 §2), in a packet of 576
	// bytes.
	minDHCP = 576 - header.IPv4MinimumSize - header.UDPMinimumSize
	// maxOption is the limit of one option; not all clients join an option that is
	// split (RFC 3396).
	maxOption = 255
)

// handleDHCP answers a DHCP message (RFC 2131) from the guest.
func (n *Network) handleDHCP(message []byte) {
	reply := dhcpReply(message, n.dns.search())
	if len(reply) == 0 || len(reply) > maxDHCP {
		return
	}
	// A client without an address may accept broadcasts only; one that renews its lease
	// may accept unicast only.
	mac, dst := header.EthernetBroadcastAddress, header.IPv4Broadcast
	if a := [4]byte(reply[dhcpClientAddress:]); a == Guest.As4() {
		mac, dst = tcpip.LinkAddress(reply[dhcpClientMAC:][:header.EthernetAddressSize]), tcpipAddress(Guest)
	}
	size := header.IPv4MinimumSize + header.UDPMinimumSize + len(reply)
	v := buffer.NewViewSize(size)
	b := v.AsSlice()
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(size),
		TTL:         64,
		Protocol:    uint8(header.UDPProtocolNumber),
		SrcAddr:     tcpipAddress(Gateway),
		DstAddr:     dst,
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	u := header.UDP(b[header.IPv4MinimumSize:])
	u.Encode(&header.UDPFields{SrcPort: dhcpServerPort, DstPort: dhcpClientPort, Length: uint16(header.UDPMinimumSize + len(reply))})
	copy(u.Payload(), reply)
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), u.Length())
	u.SetChecksum(^u.CalculateChecksum(checksum.Checksum(reply, sum)))
	n.stack.WritePacketToRemote(nicID, mac, header.IPv4ProtocolNumber, buffer.MakeWithView(v))
}

// dhcpReply returns the answer to a message, or nil if there is none. It includes as
// many of the domains as fit.
func dhcpReply(message []byte, search []string) []byte {
	m, err := dhcpv4.FromBytes(message)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest {
		return nil
	}
	gateway, guest := net.IP(Gateway.AsSlice()), net.IP(Guest.AsSlice())
	if id := m.ServerIdentifier(); id != nil && !id.Equal(gateway) {
		return nil // it accepts another server's offer
	}
	var t dhcpv4.MessageType
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		t = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		t = dhcpv4.MessageTypeAck
		want := m.RequestedIPAddress()
		if want == nil || want.IsUnspecified() {
			want = m.ClientIPAddr
		}
		if !want.Equal(guest) {
			t = dhcpv4.MessageTypeNak
		}
	case dhcpv4.MessageTypeInform:
		t = dhcpv4.MessageTypeAck
	default:
		return nil // RELEASE and DECLINE among them
	}
	mods := []dhcpv4.Modifier{dhcpv4.WithMessageType(t), dhcpv4.WithClientIP(m.ClientIPAddr), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(gateway))}
	if t != dhcpv4.MessageTypeNak {
		mods = append(mods,
			dhcpv4.WithServerIP(gateway),
			dhcpv4.WithNetmask(net.CIDRMask(Subnet.Bits(), 32)),
			dhcpv4.WithRouter(gateway),
			dhcpv4.WithDNS(net.IP(DNS.AsSlice())),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{MTU >> 8, MTU & 0xff})),
		)
		if m.MessageType() != dhcpv4.MessageTypeInform {
			mods = append(mods, dhcpv4.WithYourIP(guest), dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(lease)))
		}
	}
	r, err := dhcpv4.NewReplyFromRequest(m, mods...)
	if err != nil {
		return nil
	}
	if t == dhcpv4.MessageTypeNak || len(search) == 0 {
		return r.ToBytes()
	}
	limit := minDHCP
	if size, err := m.MaxMessageSize(); err == nil {
		limit = min(max(int(size)-header.IPv4MinimumSize-header.UDPMinimumSize, minDHCP), maxDHCP)
	}
	return fitDomains(r, search, limit)
}

// fitDomains returns a reply with as many domains as fit.
func fitDomains(r *dhcpv4.DHCPv4, search []string, limit int) []byte {
	b := r.ToBytes()
	for _, first := range []bool{true, false} {
		for room := maxOption; room >= len(search[0])+2; room -= room/8 + 1 {
			if with := withDomains(r, search, first, room); len(with) <= limit {
				return with
			}
		}
	}
	return b
}

// withDomains returns a reply with the search domains: as many as fit (RFC 3397) and,
// for clients that know only this option, the first (RFC 2132 §3.17).
func withDomains(r *dhcpv4.DHCPv4, search []string, first bool, room int) []byte {
	r.Options.Del(dhcpv4.OptionDomainName)
	if first {
		r.UpdateOption(dhcpv4.OptDomainName(search[0]))
	}
	r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionDNSDomainSearchList, appendDomains(nil, search, room)))
	return r.ToBytes()
}

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

// lease is what the guest's address is given for. There is nobody else to give
// it to.
const lease = 24 * time.Hour

const (
	dhcpServerPort = 67
	dhcpClientPort = 68

	// Where in a message they are.
	dhcpClientAddress = 12 // ciaddr
	dhcpClientMAC     = 28 // chaddr

	// maxDHCP bounds a reply, which has some of the request's options. No longer
	// one fits into a frame.
	maxDHCP = MTU - header.IPv4MinimumSize - header.UDPMinimumSize
)

// handleDHCP answers a message of DHCP (RFC 2131) from the guest.
func (n *Network) handleDHCP(message []byte) {
	reply := dhcpReply(message)
	if len(reply) == 0 || len(reply) > maxDHCP {
		return
	}
	// A client that has no address yet may take what is sent to all only; one that
	// renews its lease may take what is sent to it only.
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

// dhcpReply returns the answer to a message, or nil if there is none.
func dhcpReply(message []byte) []byte {
	m, err := dhcpv4.FromBytes(message)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest {
		return nil
	}
	gateway, guest := net.IP(Gateway.AsSlice()), net.IP(Guest.AsSlice())
	if id := m.ServerIdentifier(); id != nil && !id.Equal(gateway) {
		return nil // it takes another server's offer
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
	return r.ToBytes()
}

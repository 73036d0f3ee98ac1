package usernet

import (
	"errors"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"vmm/ethernet"
	"vmm/task"
)

// endpoint is the network as netstack sees it: a stack.LinkEndpoint.
type endpoint struct {
	out        *queue
	owner      task.Owner
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
}

var (
	errLength = errors.New("user network: a frame that is too short or too long")
	errClosed = errors.New("user network: closed")
)

// Send implements ethernet.Link. The frame is copied once, and only the copy is
// examined: the guest can change the original at any time.
func (n *Network) Send(_ int, h *ethernet.Header, frame [][]byte) error {
	d := n.link.dispatcher.Load()
	if d == nil || n.ctx.Err() != nil {
		return errClosed
	}
	size := 0
	for _, b := range frame {
		size += len(b)
	}
	if size < ethernet.HeaderLen || size > ethernet.MaxFrame {
		return errLength
	}
	// The header is kept apart: with it, the largest packet would exceed the largest
	// pooled view.
	var link [ethernet.HeaderLen]byte
	view := buffer.NewViewSize(size - len(link))
	left, to := link[:], view.AsSlice()
	for _, b := range frame {
		k := copy(left, b)
		left = left[k:]
		to = to[copy(to, b[k:]):]
	}
	if !n.admit(link[:], view.AsSlice()) {
		view.Release()
		return nil
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: len(link), Payload: buffer.MakeWithView(view)})
	eth := header.Ethernet(pkt.LinkHeader().Push(len(link)))
	copy(eth, link[:])
	switch dst := eth.DestinationAddress(); {
	case dst == header.EthernetBroadcastAddress:
		pkt.PktType = tcpip.PacketBroadcast
	case header.IsMulticastEthernetAddress(dst):
		pkt.PktType = tcpip.PacketMulticast
	default:
		pkt.PktType = tcpip.PacketHost
	}
	(*d).DeliverNetworkPacket(eth.Type(), pkt)
	pkt.DecRef()
	return nil
}

// WritePackets implements stack.LinkEndpoint. Netstack's goroutines call it too.
func (e *endpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	defer e.owner.Rescue()
	for i, pkt := range pkts.AsSlice() {
		if !e.out.push(pkt) {
			return i, &tcpip.ErrNoBufferSpace{}
		}
	}
	return pkts.Len(), nil
}

// SupportedGSO implements stack.GSOEndpoint. It does not depend on the guest's
// offloads, which may change: frames that the guest cannot take are cut on their way
// out. That is also faster than letting netstack make small ones.
func (*endpoint) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// maxPacket is the largest value of the 16-bit length of an IP packet.
const maxPacket = 65535

// GSOMaxSize implements stack.GSOEndpoint.
func (*endpoint) GSOMaxSize() uint32 { return maxPacket }

// Capabilities implements stack.LinkEndpoint. The guest's checksums count as good,
// whether computed or offloaded: nothing can damage a frame on its way. Checksums to
// the guest are not offloaded: with CapabilityTXChecksumOffload netstack omits those of
// non-GSO segments without marking them.
func (*endpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload | stack.CapabilityResolutionRequired
}

// Attach implements stack.LinkEndpoint.
func (e *endpoint) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		e.dispatcher.Store(nil)
		return
	}
	e.dispatcher.Store(&d)
}

// AddHeader implements stack.LinkEndpoint.
func (*endpoint) AddHeader(pkt *stack.PacketBuffer) {
	header.Ethernet(pkt.LinkHeader().Push(ethernet.HeaderLen)).Encode(&header.EthernetFields{
		SrcAddr: pkt.EgressRoute.LocalLinkAddress,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements stack.LinkEndpoint.
func (*endpoint) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(ethernet.HeaderLen)
	return ok
}

// The rest of stack.LinkEndpoint.
func (e *endpoint) IsAttached() bool                      { return e.dispatcher.Load() != nil }
func (*endpoint) MTU() uint32                             { return MTU }
func (*endpoint) SetMTU(uint32)                           {}
func (*endpoint) MaxHeaderLength() uint16                 { return ethernet.HeaderLen }
func (*endpoint) LinkAddress() tcpip.LinkAddress          { return tcpip.LinkAddress(GatewayMAC[:]) }
func (*endpoint) SetLinkAddress(tcpip.LinkAddress)        {}
func (*endpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (*endpoint) Wait()                                   {}
func (*endpoint) Close()                                  {}
func (*endpoint) SetOnCloseAction(func())                 {}

var (
	_ stack.LinkEndpoint = (*endpoint)(nil)
	_ stack.GSOEndpoint  = (*endpoint)(nil)
)

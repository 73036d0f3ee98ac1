package usernet

import (
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"vmm/ethernet"
)

// segmented reports whether a netstack packet is more than one segment.
func segmented(pkt *stack.PacketBuffer) bool {
	return pkt.GSOOptions.Type != stack.GSONone && pkt.Data().Size() > int(pkt.GSOOptions.MSS)
}

// mustCut reports whether a guest that takes offload cannot take pkt as it is.
func mustCut(pkt *stack.PacketBuffer, offload ethernet.Offload) bool {
	if pkt.GSOOptions.Type == stack.GSONone {
		return false // the checksum is complete
	}
	need := ethernet.Checksum
	if segmented(pkt) && pkt.GSOOptions.Type == stack.GSOTCPv4 {
		need |= ethernet.TSO4
	} else if segmented(pkt) {
		need |= ethernet.TSO6
	}
	return offload&need != need
}

// whole copies a packet as it is, and returns its length.
func whole(pkt *stack.PacketBuffer, h *ethernet.Header, bufs [][]byte) int {
	*h = ethernet.Header{}
	if g := &pkt.GSOOptions; g.Type != stack.GSONone {
		var gsoType byte
		var size uint16
		if segmented(pkt) {
			gsoType, size = ethernet.GSOTCPv4, g.MSS
			if g.Type == stack.GSOTCPv6 {
				gsoType = ethernet.GSOTCPv6
			}
		}
		start := ethernet.HeaderLen + len(pkt.NetworkHeader().Slice())
		h.Set(ethernet.NeedsChecksum, gsoType, uint16(start+len(pkt.TransportHeader().Slice())), size, uint16(start), g.CsumOffset)
	}
	out := scatter{rest: bufs}
	views, skip := pkt.AsViewList()
	forRange(views, skip, pkt.Size(), out.write)
	return out.n
}

// cutter cuts a packet into segments, or adds its checksum, for a guest that does not
// do that itself.
type cutter struct {
	pkt     *stack.PacketBuffer // nil: none
	headers [ethernet.HeaderLen + header.IPv6MinimumSize + header.IPv4MaximumHeaderSize + header.TCPHeaderMaximumSize]byte
	ip, tcp int // offsets in headers; the TCP header ends at length
	length  int
	off     int // in the data
}

func (c *cutter) more() bool { return c.pkt != nil }

func (c *cutter) drop() {
	if c.pkt != nil {
		c.pkt.DecRef()
		c.pkt = nil
	}
}

// load takes over the reference to pkt, which is a TCP packet.
func (c *cutter) load(pkt *stack.PacketBuffer) {
	c.pkt, c.off = pkt, 0
	c.ip = ethernet.HeaderLen
	c.tcp = c.ip + len(pkt.NetworkHeader().Slice())
	c.length = c.tcp + len(pkt.TransportHeader().Slice())
	out := scatter{rest: [][]byte{c.headers[:]}}
	views, skip := pkt.AsViewList()
	forRange(views, skip, min(c.length, len(c.headers)), out.write)
}

// next makes the next segment, and returns its length.
func (c *cutter) next(h *ethernet.Header, bufs [][]byte, offload ethernet.Offload) int {
	*h = ethernet.Header{}
	size := c.pkt.Data().Size()
	n := size - c.off
	if mss := int(c.pkt.GSOOptions.MSS); mss > 0 {
		n = min(n, mss)
	}
	head := c.headers // a copy
	last := c.off+n == size
	c.headerOf(head[:c.length], n, last)

	views, skip := c.pkt.AsViewList()
	skip += c.length + c.off
	segment := header.TCP(head[c.tcp:c.length])
	if offload&ethernet.Checksum != 0 {
		h.Set(ethernet.NeedsChecksum, ethernet.GSONone, uint16(c.length), 0, uint16(c.tcp), header.TCPChecksumOffset)
		segment.SetChecksum(c.pseudo(head[:], n))
	} else {
		var sum checksum.Checksumer
		forRange(views, skip, n, sum.Add)
		segment.SetChecksum(0)
		segment.SetChecksum(^segment.CalculateChecksum(checksum.Combine(c.pseudo(head[:], n), sum.Checksum())))
	}
	out := scatter{rest: bufs}
	out.write(head[:c.length])
	forRange(views, skip, n, out.write)
	if c.off += n; last {
		c.drop()
	}
	return out.n
}

// headerOf turns the headers into those of a segment with n bytes at c.off.
func (c *cutter) headerOf(head []byte, n int, last bool) {
	length := len(head) - c.ip + n
	if c.pkt.GSOOptions.Type == stack.GSOTCPv4 {
		ip := header.IPv4(head[c.ip:c.tcp])
		ip.SetTotalLength(uint16(length))
		ip.SetID(ip.ID() + uint16(c.off/max(int(c.pkt.GSOOptions.MSS), 1)))
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
	} else {
		header.IPv6(head[c.ip:c.tcp]).SetPayloadLength(uint16(length - header.IPv6MinimumSize))
	}
	t := header.TCP(head[c.tcp:])
	t.SetSequenceNumber(t.SequenceNumber() + uint32(c.off))
	flags := t.Flags()
	if !last {
		flags &^= header.TCPFlagFin | header.TCPFlagPsh
	}
	t.SetFlags(uint8(flags))
}

// pseudo returns the checksum of the pseudo header of a segment with n bytes.
func (c *cutter) pseudo(head []byte, n int) uint16 {
	length := uint16(c.length - c.tcp + n)
	if c.pkt.GSOOptions.Type == stack.GSOTCPv4 {
		ip := header.IPv4(head[c.ip:])
		return header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), length)
	}
	ip := header.IPv6(head[c.ip:])
	return header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), length)
}

// forRange calls f for the pieces of n bytes from skip on.
func forRange(views buffer.ViewList, skip, n int, f func([]byte)) {
	for v := views.Front(); v != nil && n > 0; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		b = b[skip:]
		skip = 0
		b = b[:min(len(b), n)]
		n -= len(b)
		f(b)
	}
}

// scatter writes into a list of buffers.
type scatter struct {
	rest [][]byte
	used int // of the first
	n    int // total written, including what did not fit
}

func (s *scatter) write(b []byte) {
	s.n += len(b)
	for len(b) > 0 && len(s.rest) > 0 {
		k := copy(s.rest[0][s.used:], b)
		b = b[k:]
		if s.used += k; s.used == len(s.rest[0]) {
			s.rest, s.used = s.rest[1:], 0
		}
	}
}

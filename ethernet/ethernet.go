// Package ethernet is the interface between a virtual network card and the network
// behind it: frames, and the header in front of each, which virtio and Linux taps
// share.
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package ethernet

import (
	"encoding/binary"
	"errors"
)

var le = binary.LittleEndian

// A MAC is an Ethernet address.
type MAC [6]byte

// Multicast reports whether m is a group address.
func (m MAC) Multicast() bool { return m[0]&1 != 0 }

// Broadcast is the address of all stations.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// A Link is the far end of a card's cable: a tap, a network in this process, or one of
// these behind a filter. A frame is an Ethernet frame without its checksum, at most
// MaxFrame bytes.
type Link interface {
	// Info returns what the link can do. It does not change.
	Info() Info

	// Start tells g of events until Stop has returned. Frames that come after Stop wait
	// for the next Start, as far as there is room: a paused guest misses none.
	// Configure is called first.
	Start(g Guest) error
	Stop()

	// Discard drops the frames that wait, and those that come before the next Start: no
	// driver is there to take them. The link is stopped, or was never started.
	Discard()

	// Configure says what the driver can do. It is called before Start, and whenever
	// that changes.
	Configure(m Mode) error

	// Send sends a frame from the guest on one of its pairs. ErrAgain means not now:
	// g.Writable will be called. Any other error means that the frame is lost. frame
	// belongs to the guest, which may change it at any time, and is valid until Send
	// returns. Send does not block.
	Send(pair int, h *Header, frame [][]byte) error

	// Receive fills bufs with the next frame for the guest and returns its
	// length: more than fits into bufs is lost. h.Buffers is not set. ErrAgain
	// means that there is none: g.Readable will be called. It does not block.
	Receive(pair int, h *Header, bufs [][]byte) (int, error)

	// Resume undoes a Readable that returned false. An extra call does no harm.
	Resume(pair int)
}

// ErrAgain is returned by a Link that can do nothing now.
var ErrAgain = errors.New("network: try again later")

// A Guest is told of a link's events, on any goroutine but one at a time for each pair.
type Guest interface {
	// Readable is called when Receive may return a frame again. If it returns false,
	// the guest has no room: Readable is not wanted for that pair before Resume.
	Readable(pair int) bool
	// Writable is called when Send may succeed again.
	Writable(pair int)
}

// Info is what a link can do.
type Info struct {
	Pairs   int     // queues each way, 1 or more
	MTU     int     // largest packet in a frame; 0 if unknown
	Offload Offload // both ways
}

// Mode is what the driver can do.
type Mode struct {
	Pairs   int     // number of pairs it uses, from the first on
	Offload Offload // what it accepts from the link
}

// Offload is work on a frame that is left to the receiver.
type Offload uint8

const (
	Checksum Offload = 1 << iota // the TCP or UDP checksum is not computed yet
	TSO4                         // TCP over IPv4, not cut into segments yet
	TSO6                         // the same over IPv6
	ECN                          // segments with congestion notification
)

// HeaderLen is the length of an Ethernet header.
const HeaderLen = 14

// MaxFrame is the largest frame: the largest IP packet and an Ethernet header
// with a VLAN tag.
const MaxFrame = 65535 + 18

// HeaderSize is the size of a Header in guest memory.
const HeaderSize = 12

// Header is struct virtio_net_hdr, §5.1.6, of version 1 and later.
type Header [HeaderSize]byte

// Bits of Header.Flags, and values of GSOType.
const (
	NeedsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	DataValid     = 2 // VIRTIO_NET_HDR_F_DATA_VALID

	GSONone  = 0    // VIRTIO_NET_HDR_GSO_NONE
	GSOTCPv4 = 1    // VIRTIO_NET_HDR_GSO_TCPV4
	GSOTCPv6 = 4    // VIRTIO_NET_HDR_GSO_TCPV6
	GSOECN   = 0x80 // VIRTIO_NET_HDR_GSO_ECN
)

func (h *Header) Flags() byte            { return h[0] }
func (h *Header) GSOType() byte          { return h[1] }
func (h *Header) HeaderLength() uint16   { return le.Uint16(h[2:]) }
func (h *Header) GSOSize() uint16        { return le.Uint16(h[4:]) }
func (h *Header) ChecksumStart() uint16  { return le.Uint16(h[6:]) }
func (h *Header) ChecksumOffset() uint16 { return le.Uint16(h[8:]) }

// Set sets all fields except the number of buffers, which the device sets.
func (h *Header) Set(flags, gsoType byte, headerLength, gsoSize, checksumStart, checksumOffset uint16) {
	h[0], h[1] = flags, gsoType
	le.PutUint16(h[2:], headerLength)
	le.PutUint16(h[4:], gsoSize)
	le.PutUint16(h[6:], checksumStart)
	le.PutUint16(h[8:], checksumOffset)
}

// SetBuffers sets the number of buffers that the frame spans.
func (h *Header) SetBuffers(n uint16) { le.PutUint16(h[10:], n) }

// Needs returns the offloads that a receiver needs to understand a frame with this
// header, and false for an invalid header.
func (h *Header) Needs() (o Offload, ok bool) {
	switch {
	case h.Flags()&^NeedsChecksum != 0:
		return 0, false
	case h.Flags()&NeedsChecksum != 0:
		o |= Checksum
	case h.GSOType() != GSONone:
		return 0, false // §5.1.6.2: segments need checksums
	}
	switch h.GSOType() &^ GSOECN {
	case GSOTCPv4:
		o |= TSO4
	case GSOTCPv6:
		o |= TSO6
	case GSONone:
		return o, h.GSOType() == GSONone
	default:
		return 0, false
	}
	if h.GSOType()&GSOECN != 0 {
		o |= ECN
	}
	return o, h.GSOSize() > 0
}

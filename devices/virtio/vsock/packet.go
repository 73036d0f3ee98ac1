package vsock

import "encoding/binary"

var le = binary.LittleEndian

// Well-known addresses, §5.10.4.
const (
	hostCID = 2
	// MinCID and MaxCID bound a guest's CID.
	MinCID = 3
	MaxCID = 0xffff_fffe
)

// typeStream is VIRTIO_VSOCK_TYPE_STREAM, §5.10.6.2.
const typeStream = 1

// Operations (VIRTIO_VSOCK_OP_*), §5.10.6.
const (
	opRequest       = 1
	opResponse      = 2
	opReset         = 3
	opShutdown      = 4
	opData          = 5 // RW
	opCreditUpdate  = 6
	opCreditRequest = 7
)

// Flags of a shutdown, §5.10.6.5: what its sender will no longer do.
const (
	shutReceive = 1 << 0
	shutSend    = 1 << 1
	shutBoth    = shutReceive | shutSend
)

// headerSize is the size of struct virtio_vsock_hdr.
const headerSize = 44

// packet is a header, §5.10.6.
type packet struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	len              uint32
	kind             uint16 // type
	op               uint16
	flags            uint32
	bufAlloc, fwdCnt uint32
}

func (p *packet) decode(b *[headerSize]byte) {
	p.srcCID, p.dstCID = le.Uint64(b[0:]), le.Uint64(b[8:])
	p.srcPort, p.dstPort = le.Uint32(b[16:]), le.Uint32(b[20:])
	p.len = le.Uint32(b[24:])
	p.kind, p.op = le.Uint16(b[28:]), le.Uint16(b[30:])
	p.flags = le.Uint32(b[32:])
	p.bufAlloc, p.fwdCnt = le.Uint32(b[36:]), le.Uint32(b[40:])
}

func (p *packet) encode(b *[headerSize]byte) {
	le.PutUint64(b[0:], p.srcCID)
	le.PutUint64(b[8:], p.dstCID)
	le.PutUint32(b[16:], p.srcPort)
	le.PutUint32(b[20:], p.dstPort)
	le.PutUint32(b[24:], p.len)
	le.PutUint16(b[28:], p.kind)
	le.PutUint16(b[30:], p.op)
	le.PutUint32(b[32:], p.flags)
	le.PutUint32(b[36:], p.bufAlloc)
	le.PutUint32(b[40:], p.fwdCnt)
}

// reset returns the answer to a packet that belongs to no connection.
func (p *packet) reset() packet {
	return packet{
		srcCID: p.dstCID, dstCID: p.srcCID, srcPort: p.dstPort, dstPort: p.srcPort,
		kind: p.kind, op: opReset,
	}
}

package blk

import (
	"errors"
	"time"

	"vmm/devices/virtio/virtq"
)

// Request types, §5.2.6.
const (
	typeIn          = 0  // VIRTIO_BLK_T_IN
	typeOut         = 1  // VIRTIO_BLK_T_OUT
	typeFlush       = 4  // VIRTIO_BLK_T_FLUSH
	typeID          = 8  // VIRTIO_BLK_T_GET_ID
	typeDiscard     = 11 // VIRTIO_BLK_T_DISCARD
	typeWriteZeroes = 13 // VIRTIO_BLK_T_WRITE_ZEROES
)

// A status is the last byte of a request, §5.2.6.
type status byte

const (
	statusOK     status = 0 // VIRTIO_BLK_S_OK
	statusIOErr  status = 1 // VIRTIO_BLK_S_IOERR
	statusUnsupp status = 2 // VIRTIO_BLK_S_UNSUPP

	statusLater status = 0xff // ours: not done yet
)

const headerSize = 16 // struct virtio_blk_req up to data

// A request is a parsed chain. How it is split into buffers means nothing (§2.7.4.1):
// the header is the first 16 bytes that the device reads, the status the last that it
// writes, the data what lies between. Parts that the request type does not use are
// ignored.
type request struct {
	queue *virtq.Queue
	chain *virtq.Chain // without header and status
	began time.Time

	status [][]byte // nil: no room for a status
	kind   uint32
	off    int64  // bytes
	n      uint64 // bytes of data, in either direction
	room   uint64 // bytes of Writable
}

// parse checks a request, and reads its header once. If it returns statusOK, the
// request is in bounds.
func (d *Device) parse(r *request) status {
	var header [headerSize]byte
	r.status = r.chain.CutLast(1)
	r.room = r.chain.WritableLen()
	if r.status == nil || !r.chain.ReadFull(header[:]) {
		return statusIOErr
	}
	r.kind = le.Uint32(header[0:])
	sector := le.Uint64(header[8:])
	switch r.kind {
	case typeIn:
		r.n = r.room
	case typeOut, typeDiscard, typeWriteZeroes:
		r.n = r.chain.ReadableLen()
		if d.image.ReadOnly() { // §5.2.6.2
			return statusIOErr
		}
	case typeFlush, typeID:
	default:
		return statusUnsupp
	}
	switch {
	case r.n > maxBytes || r.room > maxBytes:
		return statusIOErr
	case r.kind == typeDiscard && d.features&featureDiscard == 0, r.kind == typeWriteZeroes && d.features&featureWriteZeroes == 0:
		return statusUnsupp
	case r.kind == typeIn || r.kind == typeOut:
		if r.n%sectorSize != 0 || !d.within(sector, r.n/sectorSize) {
			return statusIOErr
		}
		r.off = int64(sector) * sectorSize
	}
	return statusOK
}

// within reports whether n sectors from sector on are on the disk. Neither the sum
// nor the product overflows, whatever the guest says.
func (d *Device) within(sector, n uint64) bool {
	capacity := uint64(d.image.Size()) / sectorSize
	return sector <= capacity && n <= capacity-sector
}

// attemptBytes is the largest request tried on the queue's goroutine. Larger ones go
// to the workers, so that the requests behind them do not wait.
const attemptBytes = 1 << 20

// attempt does a request if it can be done at once: handing it to a worker and waking
// that takes longer than a read from the host's page cache.
func (d *Device) attempt(r *request) status {
	done, err := false, error(nil)
	switch {
	case r.kind == typeID:
		clearAll(r.chain.Writable)
		r.chain.Write(d.serial[:]) // §5.2.6: no terminating 0 if it has 20 bytes
		return statusOK
	case r.n == 0 && (r.kind == typeIn || r.kind == typeOut):
		return statusOK
	case d.try == nil || r.n > attemptBytes:
	case r.kind == typeIn:
		done, err = d.try.TryReadvAt(r.chain.Writable, r.off)
	case r.kind == typeOut && d.features&featureFlush != 0:
		done, err = d.try.TryWritevAt(r.chain.Readable, r.off)
	}
	if !done {
		return statusLater
	}
	return d.statusOf(err)
}

// execute does a request and waits for the host.
func (d *Device) execute(r *request) status {
	switch r.kind {
	case typeIn:
		return d.statusOf(d.image.ReadvAt(r.chain.Writable, r.off))
	case typeOut:
		return d.written(d.statusOf(d.image.WritevAt(r.chain.Readable, r.off)))
	case typeFlush:
		// A flush covers the writes whose completion the driver may have seen
		// (§5.2.6.2). The image has returned from those.
		return d.statusOf(d.image.Flush())
	case typeDiscard:
		return d.executeSegments(r, maxDiscardSeg, maxDiscardSectors)
	case typeWriteZeroes:
		return d.written(d.executeSegments(r, maxWriteZeroesSeg, maxWriteZeroesSectors))
	}
	panic("internal error: block device: a request that was not checked")
}

// written completes a write. A driver without FLUSH cannot ask for a flush, so its
// writes must be stable when they complete (§5.2.6.2).
func (d *Device) written(s status) status {
	if s == statusOK && d.features&featureFlush == 0 {
		s = d.statusOf(d.image.Flush())
	}
	return s
}

func (d *Device) statusOf(err error) status {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, errors.ErrUnsupported):
		return statusUnsupp
	}
	d.failed.Warn("the guest gets I/O errors", "err", err)
	return statusIOErr
}

// answer writes the answer to a request and returns its used length. That counts
// bytes from the front of the chain's room up to the status, which is last, so all
// bytes before it must be written (§2.7.8.2). What a request leaves unwritten, such
// as a failed read, is zeroed. The zeros say nothing about the disk; they keep the
// rest of a failed transfer from looking like data.
//
// Without room for a status there is no answer: the used length is 0. It is also 0 if
// the room is too large to zero; then the status is still written.
func answer(r *request, s status) uint32 {
	if r.status == nil {
		return 0
	}
	if (s != statusOK || r.kind != typeIn && r.kind != typeID) && r.room <= maxBytes {
		clearAll(r.chain.Writable)
	}
	r.status[0][0] = byte(s)
	if r.room > maxBytes {
		return 0
	}
	return uint32(r.room) + 1
}

func clearAll(bufs [][]byte) {
	for _, b := range bufs {
		clear(b)
	}
}

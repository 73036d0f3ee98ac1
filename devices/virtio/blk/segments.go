package blk

// A segment is struct virtio_blk_discard_write_zeroes, §5.2.6.
type segment struct {
	off, n int64 // bytes
	unmap  bool
}

const (
	segmentSize  = 16
	segmentUnmap = 1 // of flags
)

// executeSegments does a DISCARD or WRITE_ZEROES. All segments are copied and checked
// before the first is done, so that an invalid request does nothing.
func (d *Device) executeSegments(r *request, most int, sectors uint32) status {
	count := int(r.n / segmentSize)
	if r.n%segmentSize != 0 || count == 0 || count > most {
		return statusIOErr
	}
	var segments [maxDiscardSeg]segment
	for i := range segments[:count] {
		var b [segmentSize]byte
		if !r.chain.ReadFull(b[:]) {
			panic("internal error: block device: a chain has become shorter")
		}
		sector, n, flags := le.Uint64(b[0:]), le.Uint32(b[8:]), le.Uint32(b[12:])
		if flags&^segmentUnmap != 0 || r.kind == typeDiscard && flags != 0 { // §5.2.6.2
			return statusUnsupp
		}
		if n > sectors || !d.within(sector, uint64(n)) {
			return statusIOErr
		}
		segments[i] = segment{int64(sector) * sectorSize, int64(n) * sectorSize, flags&segmentUnmap != 0}
	}
	for _, seg := range segments[:count] {
		if s := d.executeSegment(r.kind, seg); s != statusOK {
			return s
		}
	}
	return statusOK
}

func (d *Device) executeSegment(kind uint32, s segment) status {
	switch {
	case s.n == 0:
		return statusOK
	case kind == typeDiscard:
		return d.statusOf(d.image.Discard(s.off, s.n))
	}
	return d.statusOf(d.image.WriteZeroes(s.off, s.n, s.unmap))
}

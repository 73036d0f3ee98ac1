package boot

import "vmm/mem"

// zeroRun is the length in bytes from which a run of zeros is left out and gets its
// own mapping.
const zeroRun = 256 << 10

var onePageOfZeros [mem.PageSize]byte

// compact removes long runs of zeros from the segments, which are in data: fresh guest
// memory is already zero. In Linux they are a quarter of the image, most of it .bss.
func (img *image) compact(data []byte) {
	var pieces []segment
	for _, s := range img.segments {
		pieces = append(pieces, s.split(data[s.Off:s.Off+s.FileSize])...)
	}
	if len(pieces) <= maxSegments {
		img.segments = pieces
	}
}

// split returns s, whose bytes are data, without its long runs of zero pages.
func (s segment) split(data []byte) []segment {
	if s.Addr%mem.PageSize != 0 {
		return []segment{s}
	}
	var out []segment
	begin, size := 0, len(data)
	piece := func(end, next int) {
		out = append(out, segment{s.Addr + uint64(begin), s.Off + uint64(begin), uint64(end - begin), uint64(next - begin)})
		begin = next
	}
	for at := 0; at < size; {
		next := at + zeroPages(data[at:])
		if next-at >= zeroRun {
			piece(at, next)
		}
		at = max(next, at+mem.PageSize)
	}
	if begin < size || len(out) == 0 {
		piece(size, int(s.MemSize))
	} else {
		out[len(out)-1].MemSize += s.MemSize - s.FileSize
	}
	return out
}

// zeroPages returns the size in bytes of the zero pages at the start of data.
func zeroPages(data []byte) (n int) {
	for n < len(data) {
		page := data[n:min(len(data), n+mem.PageSize)]
		if string(page) != string(onePageOfZeros[:len(page)]) {
			break
		}
		n += len(page)
	}
	return n
}

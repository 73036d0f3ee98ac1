package boot

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"vmm/mem"
)

// A header is the first page of an image in the cache, followed by its own SHA-256.
// After it come the segments, each at an offset congruent to its address modulo the
// page size, so that it can be mapped.
type header struct {
	Magic    [8]byte // changes with the format
	Size     uint64  // of the file
	Entry    uint64
	PVH      uint32
	Count    uint32
	Segments [maxSegments]segment
}

var (
	imageMagic  = [8]byte([]byte("vmmkrnl1"))
	headerBytes = binary.Size(header{})
)

// An entry is an image being added to the cache.
type entry struct {
	header header
	data   []byte   // the source that the image was parsed from
	from   []uint64 // offsets of the segments in data
}

func newEntry(img *image, data []byte) *entry {
	e := &entry{data: data, header: header{Magic: imageMagic, Entry: img.entry, PVH: img.pvh, Count: uint32(len(img.segments))}}
	size := uint64(mem.PageSize)
	for i, s := range img.segments {
		e.from = append(e.from, s.Off)
		s.Off = size + s.Addr%mem.PageSize
		size = alignUp(s.Off+s.FileSize, mem.PageSize)
		e.header.Segments[i] = s
	}
	e.header.Size = size
	return e
}

// write writes the entry to a new file.
func (e *entry) write(f *os.File) error {
	if err := f.Truncate(int64(e.header.Size)); err != nil {
		return err
	}
	for i, s := range e.header.Segments[:e.header.Count] {
		if _, err := f.WriteAt(e.data[e.from[i]:e.from[i]+s.FileSize], int64(s.Off)); err != nil {
			return err
		}
	}
	_, err := f.WriteAt(e.header.encode(), 0)
	return err
}

// encode returns the header with its checksum.
func (h *header) encode() []byte {
	b, err := binary.Append(nil, binary.LittleEndian, h)
	if err != nil {
		panic("internal error: " + err.Error()) // a header has a fixed size
	}
	return withSum(b)
}

func withSum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// readEntry returns the image in a cache file, or an error if it is damaged. It does
// not check the contents of the segments: that would cost as much as the cache saves.
func readEntry(f *os.File) (*image, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, headerBytes+sha256.Size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	img, err := parseHeader(b, uint64(info.Size()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	img.src, img.immortal = f, f
	return img, nil
}

// parseHeader reads the header of a file of size bytes.
func parseHeader(b []byte, size uint64) (*image, error) {
	damaged := errors.New("damaged")
	if len(b) < headerBytes+sha256.Size || sha256.Sum256(b[:headerBytes]) != [sha256.Size]byte(b[headerBytes:]) {
		return nil, damaged
	}
	var h header
	if _, err := binary.Decode(b, binary.LittleEndian, &h); err != nil {
		return nil, err
	}
	if h.Magic != imageMagic || h.Size != size || h.Count > maxSegments {
		return nil, damaged
	}
	img := &image{entry: h.Entry, pvh: h.PVH, segments: h.Segments[:h.Count]}
	for _, s := range img.segments {
		if s.FileSize > size || s.Off > size-s.FileSize {
			return nil, damaged
		}
	}
	if err := img.check(); err != nil {
		return nil, err
	}
	if img.entry != 0 && !img.has(img.entry) || img.pvh != 0 && !img.has(uint64(img.pvh)) {
		return nil, damaged
	}
	return img, nil
}

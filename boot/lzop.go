package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"hash/crc32"

	"github.com/anchore/go-lzo"
)

const lzopMagic = "\x89LZO\x00\x0d\x0a\x1a\x0a"

// Flags of an lzop header (lzop's conf.h).
const (
	lzopAdlerUnpacked = 1 << 0
	lzopAdlerPacked   = 1 << 1
	lzopExtraField    = 1 << 6
	lzopCRCUnpacked   = 1 << 8
	lzopCRCPacked     = 1 << 9
	lzopFilter        = 1 << 11
)

// lzopVersion1 is the first version whose header has a level, a version needed
// to extract, and a filter.
const lzopVersion1 = 0x0940

// lzopBlock bounds the unpacked size of one block (lzop's MAX_BLOCK_SIZE).
const lzopBlock = 64 << 20

// A cursor reads big-endian numbers from a byte string. Past its end it returns zeros
// and sets short.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.short, c.b = true, nil
		return make([]byte, min(n, 4))
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u8() uint8   { return c.take(1)[0] }
func (c *cursor) u16() uint16 { return binary.BigEndian.Uint16(c.take(2)) }
func (c *cursor) u32() uint32 { return binary.BigEndian.Uint32(c.take(4)) }

// lzopHeader skips the header and returns its flags.
func (c *cursor) lzopHeader() uint32 {
	c.take(uint64(len(lzopMagic)))
	version := c.u16()
	c.u16() // version of the library
	if version >= lzopVersion1 {
		c.u16() // version needed to extract
	}
	c.u8() // method
	if version >= lzopVersion1 {
		c.u8() // level
	}
	flags := c.u32()
	if flags&lzopFilter != 0 {
		c.u32()
	}
	c.take(8) // mode, mtime
	if version >= lzopVersion1 {
		c.u32() // mtime, upper half
	}
	c.take(uint64(c.u8())) // name
	c.u32()                // checksum of the header
	if flags&lzopExtraField != 0 {
		c.take(uint64(c.u32()))
		c.u32()
	}
	return flags
}

// unpackLZOP unpacks the lzop container, in which Linux packs kernels.
func unpackLZOP(dst, src []byte) error {
	c := &cursor{b: src}
	flags := c.lzopHeader()
	for {
		unpacked := c.u32()
		if c.short {
			return errors.New("truncated container")
		}
		if unpacked == 0 {
			break
		}
		if uint64(unpacked) > uint64(len(dst)) || unpacked > lzopBlock {
			return errTooMuch
		}
		if err := c.lzopBlock(dst[:unpacked], flags); err != nil {
			return err
		}
		dst = dst[unpacked:]
	}
	if len(dst) > 0 {
		return errTooFew
	}
	return nil
}

// lzopBlock unpacks a block whose unpacked size has already been read.
func (c *cursor) lzopBlock(out []byte, flags uint32) error {
	packed := c.u32()
	sums := make(map[uint32]uint32)
	for _, flag := range []uint32{lzopAdlerUnpacked, lzopCRCUnpacked, lzopAdlerPacked, lzopCRCPacked} {
		ofPacked := flag == lzopAdlerPacked || flag == lzopCRCPacked
		if flags&flag != 0 && !(ofPacked && uint64(packed) == uint64(len(out))) {
			sums[flag] = c.u32()
		}
	}
	block := c.take(uint64(packed))
	switch {
	case c.short:
		return errors.New("truncated block")
	case len(block) > len(out):
		return errors.New("block is larger packed than unpacked")
	case len(block) == len(out):
		copy(out, block) // stored
	default:
		if n, err := lzo.Decompress(block, out); err != nil {
			return err
		} else if n != len(out) {
			return errTooFew
		}
	}
	for flag, sum := range sums {
		got := uint32(0)
		switch flag {
		case lzopAdlerUnpacked:
			got = adler32.Checksum(out)
		case lzopCRCUnpacked:
			got = crc32.ChecksumIEEE(out)
		case lzopAdlerPacked:
			got = adler32.Checksum(block)
		case lzopCRCPacked:
			got = crc32.ChecksumIEEE(block)
		}
		if got != sum {
			return fmt.Errorf("checksum %#x of a block, not %#x", got, sum)
		}
	}
	return nil
}

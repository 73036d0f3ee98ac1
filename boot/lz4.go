package boot

import (
	"cmp"
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/pierrec/lz4/v4"

	"vmm/task"
)

// The legacy frame of lz4, in which Linux packs kernels: a magic number, then blocks,
// each with a 4-byte length and data that unpacks to 8 MiB, the last one to less.
const (
	lz4Magic = "\x02\x21\x4c\x18"
	lz4Block = 8 << 20
)

// unpackLZ4 unpacks all blocks concurrently, each to its own place: they are
// independent of one another.
func unpackLZ4(dst, src []byte) error {
	var outs, blocks [][]byte
	err := eachLZ4Block(dst, src, func(out, block []byte) { outs, blocks = append(outs, out), append(blocks, block) })
	if err != nil {
		return err
	}
	var next atomic.Int64 // block
	errs := make([]error, len(blocks))
	task.Each(min(runtime.GOMAXPROCS(0), len(blocks)), func(int) {
		for i := next.Add(1) - 1; i < int64(len(blocks)); i = next.Add(1) - 1 {
			n, err := lz4.UncompressBlock(blocks[i], outs[i])
			if err == nil && n < len(outs[i]) {
				err = errTooFew
			}
			errs[i] = err
		}
	})
	return cmp.Or(errs...)
}

// eachLZ4Block calls unpack for every block with its part of dst.
func eachLZ4Block(dst, src []byte, unpack func(out, block []byte)) error {
	for len(src) > 0 {
		if len(src) < 4 {
			return errors.New("truncated frame")
		}
		n := binary.LittleEndian.Uint32(src)
		more := string(src[:4]) == lz4Magic // the first or a further frame
		src = src[4:]
		if more {
			continue
		}
		if uint64(n) > uint64(len(src)) {
			return errors.New("truncated block")
		}
		if len(dst) == 0 {
			return errTooMuch
		}
		out := dst[:min(len(dst), lz4Block)]
		unpack(out, src[:n])
		dst, src = dst[len(out):], src[n:]
	}
	if len(dst) > 0 {
		return errTooFew
	}
	return nil
}

package boot

import (
	"encoding/binary"
	"errors"
	"io"
)

// The headers of kernels for GRUB's own protocols, by the Multiboot Specification
// 0.6.96 §3.1.1 and 2.0 §3.1.1: a magic number in the file's first bytes, followed by
// 32-bit fields that sum to 0 with it.
var multiboots = []struct {
	magic       uint32
	within      int64 // bytes from the file's start
	align, sums int   // bytes; fields, with the magic
}{
	{0x1badb002, 8 << 10, 4, 3},
	{0xe85250d6, 32 << 10, 8, 4},
}

var errMultiboot = errors.New("a multiboot kernel, which is not supported: take a Linux kernel, or one with a PVH entry (Xen ELF note 18)")

// isMultiboot reports whether a file of size bytes has either header. Such a kernel is
// entered in 32-bit mode.
func isMultiboot(r io.ReaderAt, size int64) (bool, error) {
	head := make([]byte, min(size, headSize))
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return false, err
	}
	return hasMultiboot(head), nil
}

func hasMultiboot(head []byte) bool {
	for _, m := range multiboots {
		b := head[:min(int64(len(head)), m.within)]
		for ; len(b) >= 4*m.sums; b = b[m.align:] {
			if binary.LittleEndian.Uint32(b) != m.magic {
				continue
			}
			sum := uint32(0)
			for i := range m.sums {
				sum += binary.LittleEndian.Uint32(b[4*i:])
			}
			if sum == 0 {
				return true
			}
		}
	}
	return false
}

package boot

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/sys/unix"
)

// scratch is temporary memory for loading a kernel. It is mapped, not on the Go heap,
// so that it is returned to the host at once.
type scratch []byte

func newScratch(n int64) (scratch, error) {
	b, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("memory of %d bytes for the kernel: %w", n, err)
	}
	unix.Madvise(b, unix.MADV_HUGEPAGE) // advice only
	return b, nil
}

func (s scratch) free() { unix.Munmap(s) }

// maxWindow bounds how much of its output a decoder may keep. Linux packs with windows
// of at most 128 MiB (scripts/Makefile.lib, scripts/xz_wrap.sh).
const maxWindow = 128 << 20

// A format is a compression format of Linux kernels. unpack must fill dst exactly.
type format struct {
	name   string
	magic  string
	unpack func(dst, src []byte) error
}

// formats lists the formats that the kernel's lib/decompress.c knows.
var formats = []format{
	{"gzip", "\x1f\x8b\x08", unpackGzip},
	{"lz4", lz4Magic, unpackLZ4},
	{"xz", "\xfd7zXZ\x00", unpackXZ},
	{"zstd", "\x28\xb5\x2f\xfd", unpackZstd},
	{"bzip2", "BZh", unpackBzip2},
	{"lzma", "\x5d\x00\x00", unpackLZMA},
	{"lzo", lzopMagic, unpackLZOP},
}

// unpack returns the contents of a bzImage's payload; the caller frees them. Every
// payload ends with its unpacked size in 4 bytes; in gzip they are part of the format.
// limit bounds that size, and with it the work.
func unpack(payload []byte, limit int64) (scratch, error) {
	const trailer = 4
	var f *format
	for i := range formats {
		if bytes.HasPrefix(payload, []byte(formats[i].magic)) {
			f = &formats[i]
		}
	}
	if f == nil || len(payload) < trailer {
		return nil, fmt.Errorf("its payload begins with % x, which is no known compression: %w", payload[:min(len(payload), 6)], errUnsupported)
	}
	body := payload[:len(payload)-trailer]
	size := int64(binary.LittleEndian.Uint32(payload[len(body):]))
	if f.name == "gzip" {
		body = payload
	}
	if size == 0 || size > limit {
		return nil, corrupt(f.name, fmt.Errorf("unpacked size %d, init_size %d", size, limit))
	}
	out, err := newScratch(size)
	if err != nil {
		return nil, err
	}
	if err := f.unpack(out, body); err != nil {
		out.free()
		return nil, corrupt(f.name, err)
	}
	return out, nil
}

func corrupt(format string, err error) error {
	return fmt.Errorf("corrupt payload (%s: %w): copy the file again, or try mode bzimage", format, err)
}

var (
	errTooMuch = errors.New("more data than the stated size")
	errTooFew  = errors.New("less data than the stated size")
)

// readAll fills dst from r, which must end there. Reading to the end also makes a
// decoder verify its checksums.
func readAll(dst []byte, r io.Reader) error {
	if _, err := io.ReadFull(r, dst); err != nil {
		if err == io.ErrUnexpectedEOF || err == io.EOF {
			return errTooFew
		}
		return err
	}
	switch n, err := r.Read(make([]byte, 1)); {
	case n > 0:
		return errTooMuch
	case err != nil && err != io.EOF:
		return err
	}
	return nil
}

func unpackGzip(dst, src []byte) error {
	r, err := gzip.NewReader(bytes.NewReader(src))
	if err != nil {
		return err
	}
	r.Multistream(false)
	return readAll(dst, r)
}

func unpackXZ(dst, src []byte) error {
	r, err := xz.NewReader(bytes.NewReader(src), maxWindow)
	if err != nil {
		return err
	}
	return readAll(dst, r)
}

func unpackLZMA(dst, src []byte) error {
	r, err := lzma.ReaderConfig{DictCap: maxWindow}.NewReader(bytes.NewReader(src))
	if err != nil {
		return err
	}
	return readAll(dst, r)
}

func unpackBzip2(dst, src []byte) error { return readAll(dst, bzip2.NewReader(bytes.NewReader(src))) }

func unpackZstd(dst, src []byte) error {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return err
	}
	defer d.Close()
	out, err := d.DecodeAll(src, dst[:0:len(dst)])
	switch {
	case err != nil:
		return err
	case len(out) < len(dst):
		return errTooFew
	}
	return nil
}

package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"vmm/mem"
)

// FuzzLoad loads untrusted files, bzImages and ELFs, in every mode.
func FuzzLoad(f *testing.F) {
	for tool := range tools {
		f.Add(bzImage(packed(f, tool)), byte(0))
	}
	f.Add(tinyELF(), byte(1))
	f.Add(tinyELF32(note("Xen", 18, le32(pvhAddr))), byte(3))
	f.Add(bzImage(nil), byte(2))
	m := ram(f, 32)
	path := filepath.Join(f.TempDir(), "kernel")
	f.Fuzz(func(t *testing.T, file []byte, mode byte) {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		p := Params{Kernel: path, Initrds: []string{path}, Mode: []Mode{Auto, Direct, BzImage, PVH}[mode%4]}
		if len(file) == 0 {
			p.Initrds = nil
		}
		e, err := Load(m, p)
		if err != nil {
			return
		}
		if _, err := m.Slice(mem.Addr(e.IP), 1); err != nil || e.IP < uint64(holeEnd) {
			t.Errorf("entry at %#x", e.IP)
		}
	})
}

// FuzzUnpack unpacks untrusted payloads, up to 1 MiB.
func FuzzUnpack(f *testing.F) {
	for tool := range tools {
		f.Add(packed(f, tool))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		b, err := unpack(payload, 1<<20)
		if err != nil {
			return
		}
		if len(b) == 0 || len(b) > 1<<20 {
			t.Errorf("%d bytes", len(b))
		}
		b.free()
	})
}

func FuzzLZOP(f *testing.F) {
	f.Add(packed(f, "lzo"))
	f.Add([]byte(lzopMagic + "\x09\x00\x20\xa0\x03\x00\x00\x00\x00modemtim\x00csum\x00\x00\x00\x05\x00\x00\x00\x05hello\x00\x00\x00\x00"))
	dst := make([]byte, 1<<16)
	f.Fuzz(func(t *testing.T, file []byte) { unpackLZOP(dst, file) })
}

func FuzzNotes(f *testing.F) {
	f.Add(append(note("GNU", 3, []byte("id")), note("Xen", 18, le32(pvhAddr))...), uint64(4))
	f.Add(note("Xen", 18, make([]byte, 8)), uint64(8))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x12\x00\x00\x00Xen\x00"), uint64(0))
	f.Fuzz(func(t *testing.T, notes []byte, align uint64) { pvhEntry(notes, align) })
}

// FuzzHeader reads untrusted cache headers, after correcting their checksum.
func FuzzHeader(f *testing.F) {
	elf := tinyELF()
	img, err := parseELF(bytes.NewReader(elf), int64(len(elf)))
	if err != nil {
		f.Fatal(err)
	}
	h := newEntry(img, elf).header
	f.Add(h.encode()[:headerBytes], h.Size)
	f.Fuzz(func(t *testing.T, b []byte, size uint64) {
		img, err := parseHeader(withSum(append(b, make([]byte, headerBytes)...)[:headerBytes]), size)
		if err != nil {
			return
		}
		for _, s := range img.segments {
			if s.Addr < uint64(holeEnd) || s.FileSize > s.MemSize || s.Off+s.FileSize > size || s.Off+s.FileSize < s.Off {
				t.Errorf("segment %+v of %d bytes", s, size)
			}
		}
	})
}

package boot

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"vmm/mem"
)

// A tiny kernel: an ELF that looks like Linux to a loader but does nothing, and the
// bzImage around it.
const (
	textAddr = 0x1000000
	dataAddr = 0x1200000
	pvhAddr  = textAddr + 0x850
	dataSize = 0x1234
	bssSize  = 0x5000
)

// text looks a little like x86 code. Its calls repeat an absolute target, for the BCJ
// filter of xz to convert.
func text() []byte {
	var b []byte
	for i := range 1000 {
		b = append(b, 0x55, 0x48, 0x89, 0xe5, 0xe8)
		b = binary.LittleEndian.AppendUint32(b, uint32(0x2000-len(b)-4))
		b = append(b, byte(i), 0x5d, 0xc3)
	}
	return b
}

func data() []byte { return bytes.Repeat([]byte("data of the tiny kernel\n"), 200)[:dataSize] }

// note encodes an ELF note with 4-byte alignment.
func note(name string, typ uint32, desc []byte) []byte {
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)+1))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, typ)
	return pad(append(pad(append(b, name+"\x00"...)), desc...))
}

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// multiboot and multiboot2 are the headers of GRUB kernels.
func multiboot() []byte {
	return append(append(le32(0x1badb002), le32(3)...), le32(^uint32(0x1badb002+3)+1)...)
}

func multiboot2() []byte {
	b := append(append(le32(0xe85250d6), le32(0)...), le32(16)...)
	return append(b, le32(^uint32(0xe85250d6+16)+1)...)
}

// An elfImage is what tinyELF writes; tests modify it first.
type elfImage struct {
	header elf.Header64
	progs  []elf.Prog64
	bodies [][]byte
}

func newELF() *elfImage {
	notes := append(note("GNU", 3, []byte("build id")), note("Xen", 18, le32(pvhAddr))...)
	k := &elfImage{
		header: elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: textAddr, Phoff: 64, Ehsize: 64, Phentsize: 56},
		progs: []elf.Prog64{
			{Type: uint32(elf.PT_LOAD), Vaddr: 0xffffffff81000000, Paddr: textAddr, Memsz: uint64(len(text()))},
			{Type: uint32(elf.PT_LOAD), Vaddr: 0xffffffff81200000, Paddr: dataAddr, Memsz: bssSize},
			{Type: uint32(elf.PT_NOTE), Memsz: uint64(len(notes)), Align: 4},
		},
		bodies: [][]byte{text(), data(), notes},
	}
	copy(k.header.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	return k
}

// bytes encodes the ELF, with every body on its own page.
func (k *elfImage) bytes() []byte {
	h := k.header
	h.Phnum = uint16(len(k.progs))
	b, _ := binary.Append(nil, binary.LittleEndian, h)
	progs := append([]elf.Prog64(nil), k.progs...)
	off := uint64(mem.PageSize)
	for i, body := range k.bodies {
		progs[i].Off, progs[i].Filesz = off, uint64(len(body))
		off = alignUp(off+uint64(len(body)), mem.PageSize)
	}
	b, _ = binary.Append(b, binary.LittleEndian, progs)
	for i, body := range k.bodies {
		b = append(b, make([]byte, int(progs[i].Off)-len(b))...)
		b = append(b, body...)
	}
	return b
}

func tinyELF() []byte { return newELF().bytes() }

// tinyELF32 is an ELF of class 32 with one segment and a PVH note.
func tinyELF32(notes []byte) []byte {
	h := elf.Header32{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: 1, Entry: textAddr, Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 2}
	copy(h.Ident[:], elf.ELFMAG+"\x01\x01\x01")
	b, _ := binary.Append(nil, binary.LittleEndian, h)
	b, _ = binary.Append(b, binary.LittleEndian, []elf.Prog32{
		{Type: uint32(elf.PT_LOAD), Off: 0x1000, Paddr: textAddr, Filesz: uint32(len(text())), Memsz: uint32(len(text()))},
		{Type: uint32(elf.PT_NOTE), Off: 0x200, Filesz: uint32(len(notes)), Align: 4},
	})
	b = append(append(b, make([]byte, 0x200-len(b))...), notes...)
	return append(append(b, make([]byte, 0x1000-len(b))...), text()...)
}

// bzImage wraps a payload; edits modify its setup header.
func bzImage(payload []byte, edits ...func(setup)) []byte {
	const sects, before = 4, 0x300 // before: the unpacker's own code
	version := "6.1.0-tiny (nobody) #1"
	b := make([]byte, (sects+1)*sector+int(alignUp(uint64(before+len(payload)), 16)))
	s := setup(b)
	s[setupSects] = sects
	s.put32(sysSize, uint32(len(b)-(sects+1)*sector)/16)
	s.put16(bootFlag, bootFlagMagic)
	s[headerLength] = 0x6a
	copy(s[headerMagic:], hdrS)
	s.put16(protocolVersion, 0x20f)
	s.put16(kernelVersion, 0x600-0x200)
	copy(s[0x600:], version)
	s[loadFlags] = loadedHigh
	s.put32(initrdAddrMax, linuxInitrdMax)
	s.put32(kernelAlignment, 2<<20)
	s[relocatable] = 1
	s.put16(xloadFlags, 0x7f)
	s.put32(cmdlineSize, linuxCmdline)
	s.put32(payloadOffset, before)
	s.put32(payloadLength, uint32(len(payload)))
	s.put64(setupData, 0xdead0000) // must not reach the kernel
	s.put64(prefAddress, textAddr)
	s.put32(initSize, 4<<20)
	for _, edit := range edits {
		edit(s)
	}
	copy(b[(sects+1)*sector+before:], payload)
	return b
}

// packed returns the tiny ELF as a bzImage payload, packed by the tool after which
// its testdata file is named.
func packed(tb testing.TB, tool string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "kernel."+tool))
	if err != nil {
		tb.Fatal(err)
	}
	if tool != "gzip" {
		b = append(b, le32(uint32(len(tinyELF())))...)
	}
	return b
}

// writeFile returns the path of a new file.
func writeFile(tb testing.TB, name string, b []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// ram returns size MiB of fresh guest memory.
func ram(tb testing.TB, size uint64) *mem.Memory {
	tb.Helper()
	m, err := mem.Map(mem.Range{Base: 0, Size: size << 20})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { m.Close() })
	return m
}

// at returns n bytes of guest memory.
func at(tb testing.TB, m *mem.Memory, a mem.Addr, n int) []byte {
	tb.Helper()
	b, err := m.Slice(a, uint64(n))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// checkImage checks that the tiny ELF's segments are in place.
func checkImage(tb testing.TB, m *mem.Memory) {
	tb.Helper()
	if !bytes.Equal(at(tb, m, textAddr, len(text())), text()) {
		tb.Error("the text segment is not in place")
	}
	if !bytes.Equal(at(tb, m, dataAddr, bssSize), append(data(), make([]byte, bssSize-dataSize)...)) {
		tb.Error("the data segment is not in place")
	}
}

// gzipped returns a payload that holds b.
func gzipped(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

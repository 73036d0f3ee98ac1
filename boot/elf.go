package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// isELF reports whether a file that begins with head is an ELF.
func isELF(head []byte) bool { return bytes.HasPrefix(head, []byte(elf.ELFMAG)) }

// An elfHeader holds the fields of a kernel's ELF header and program headers, of
// either class (System V ABI, "Object Files").
type elfHeader struct {
	class   elf.Class
	machine elf.Machine
	entry   uint64
	progs   []elf.Prog64
}

// parseELF reads the headers of an ELF kernel of size bytes. It does not use
// debug/elf, which also reads sections: a kernel need not have them, and they would
// only be more untrusted input.
func parseELF(r io.ReaderAt, size int64) (*image, error) {
	h, err := readELFHeader(r, size)
	if err != nil {
		return nil, err
	}
	img := &image{src: r}
	for _, p := range h.progs {
		if p.Filesz > uint64(size) || p.Off > uint64(size)-p.Filesz {
			return nil, fmt.Errorf("truncated ELF: a segment at %#x+%#x of %#x bytes; copy it again", p.Off, p.Filesz, size)
		}
		switch elf.ProgType(p.Type) {
		case elf.PT_LOAD:
			img.segments = append(img.segments, segment{p.Paddr, p.Off, p.Filesz, p.Memsz})
		case elf.PT_NOTE:
			if p.Filesz == 0 {
				continue
			}
			if p.Filesz > maxNotes {
				return nil, fmt.Errorf("ELF notes of %d bytes: not a kernel", p.Filesz)
			}
			notes := make([]byte, p.Filesz)
			if _, err := r.ReadAt(notes, int64(p.Off)); err != nil {
				return nil, fmt.Errorf("ELF notes: %w", err)
			}
			if entry, ok := pvhEntry(notes, p.Align); ok {
				img.pvh = entry
			}
		}
	}
	img.segments = slices.DeleteFunc(img.segments, func(s segment) bool { return s.MemSize == 0 })
	if err := img.check(); err != nil {
		return nil, err
	}
	if !img.has(uint64(img.pvh)) {
		img.pvh = 0
	}
	multi, err := isMultiboot(r, size)
	if err != nil {
		return nil, err
	}
	if !multi && h.enters64(img) {
		img.entry = h.entry
	}
	switch {
	case img.entry != 0 || img.pvh != 0:
		return img, nil
	case multi:
		return nil, errMultiboot
	case h.machine == elf.EM_386:
		return nil, errors.New("a 32-bit ELF without a PVH entry: take a kernel for x86-64")
	}
	return img, nil
}

// enters64 reports whether the ELF's entry is a 64-bit one: not a virtual address, not
// above the range of the page tables, and not the PVH entry, which is 32-bit code (as
// is all of an EM_386, whatever its class).
func (h *elfHeader) enters64(img *image) bool {
	return h.class == elf.ELFCLASS64 && h.machine == elf.EM_X86_64 &&
		img.has(h.entry) && h.entry < uint64(fourGiB) && h.entry != uint64(img.pvh)
}

func readELFHeader(r io.ReaderAt, size int64) (*elfHeader, error) {
	head := make([]byte, min(size, 64))
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if !isELF(head) || len(head) < 52 {
		return nil, errors.New("not an ELF kernel")
	}
	if elf.Data(head[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return nil, errors.New("an ELF of a big-endian machine: take a kernel for x86-64")
	}
	le := binary.LittleEndian
	typ := elf.Type(le.Uint16(head[16:]))
	h := &elfHeader{class: elf.Class(head[elf.EI_CLASS]), machine: elf.Machine(le.Uint16(head[18:]))}
	var off uint64
	var entsize, count int
	switch {
	case h.machine != elf.EM_X86_64 && h.machine != elf.EM_386:
		return nil, fmt.Errorf("an ELF for another machine (%v): take a kernel for x86-64", h.machine)
	case typ == elf.ET_REL:
		return nil, errors.New("an object file or kernel module: take the kernel itself")
	case h.class == elf.ELFCLASS64 && len(head) >= 64:
		h.entry, off = le.Uint64(head[24:]), le.Uint64(head[32:])
		entsize, count = int(le.Uint16(head[54:])), int(le.Uint16(head[56:]))
	case h.class == elf.ELFCLASS32:
		h.entry, off = uint64(le.Uint32(head[24:])), uint64(le.Uint32(head[28:]))
		entsize, count = int(le.Uint16(head[42:])), int(le.Uint16(head[44:]))
	default:
		return nil, errors.New("a damaged ELF: copy it again")
	}
	if count == 0 || count > maxSegments {
		return nil, fmt.Errorf("an ELF with %d segments: not a kernel", count)
	}
	return h, h.readProgs(r, size, off, entsize, count)
}

func (h *elfHeader) readProgs(r io.ReaderAt, size int64, off uint64, entsize, count int) error {
	want := 56
	if h.class == elf.ELFCLASS32 {
		want = 32
	}
	n := entsize * count
	if entsize != want || off > uint64(size) || uint64(n) > uint64(size)-off {
		return errors.New("truncated ELF: its program headers are not in the file; copy it again")
	}
	b := make([]byte, n)
	if _, err := r.ReadAt(b, int64(off)); err != nil {
		return fmt.Errorf("ELF program headers: %w", err)
	}
	for ; len(b) > 0; b = b[entsize:] {
		var p elf.Prog64
		if h.class == elf.ELFCLASS64 {
			binary.Decode(b, binary.LittleEndian, &p)
		} else {
			var q elf.Prog32
			binary.Decode(b, binary.LittleEndian, &q)
			p = elf.Prog64{Type: q.Type, Flags: q.Flags, Off: uint64(q.Off), Vaddr: uint64(q.Vaddr), Paddr: uint64(q.Paddr),
				Filesz: uint64(q.Filesz), Memsz: uint64(q.Memsz), Align: uint64(q.Align)}
		}
		h.progs = append(h.progs, p)
	}
	return nil
}

// pvhEntry returns the physical 32-bit entry given by a Xen note of type 18
// (XEN_ELFNOTE_PHYS32_ENTRY).
func pvhEntry(notes []byte, align uint64) (uint32, bool) {
	const phys32Entry = 18
	le := binary.LittleEndian
	if align != 8 {
		align = 4 // also if the header says 0 or 1
	}
	for len(notes) >= 12 {
		nameSize, descSize, typ := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:])), le.Uint32(notes[8:])
		descOff := alignUp(12+nameSize, align)
		end := descOff + descSize
		if end > uint64(len(notes)) {
			break
		}
		if typ == phys32Entry && descSize >= 4 && string(notes[12:12+nameSize]) == "Xen\x00" {
			return le.Uint32(notes[descOff:]), true
		}
		notes = notes[min(alignUp(end, align), uint64(len(notes))):]
	}
	return 0, false
}

package payload

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// Entry is where ELF puts the code.
const Entry = 0x10_0000

// ELF returns a kernel image of the code, to be entered in ring 0 and 64-bit
// mode at Entry: an executable of one loaded segment.
func ELF(code []byte) []byte {
	const headers = 64 + 56
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: Entry, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
	}
	p := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W | elf.PF_X), Off: headers,
		Vaddr: Entry, Paddr: Entry, Filesz: uint64(len(code)), Memsz: uint64(len(code)), Align: 1,
	}
	var b bytes.Buffer
	binary.Write(&b, le, h) // a bytes.Buffer does not fail
	binary.Write(&b, le, p)
	b.Write(code)
	return b.Bytes()
}

package payload

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// base is where the ELF image lies in memory, including its headers.
const base = 0x10_0000

// ELF returns an executable of the code: a kernel image, to be entered in ring 0 and 64-bit
// mode, which is also a program for Linux. The code must not depend on its address.
func ELF(code []byte) []byte {
	const headers = 64 + 56
	size := uint64(headers + len(code))
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
	}
	p := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 4096,
	}
	var b bytes.Buffer
	binary.Write(&b, le, h) // a bytes.Buffer does not fail
	binary.Write(&b, le, p)
	b.Write(code)
	return b.Bytes()
}

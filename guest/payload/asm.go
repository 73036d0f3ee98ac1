// Package payload holds small guests for tests: machine code and what a vCPU
// needs to run it, without a kernel. Code in ring 3 runs at native speed even
// where KVM interprets ring 0 (docs/lab.md), and its task-state segment lets it use ports.
package payload

import (
	"bytes"
	"encoding/binary"
)

var le = binary.LittleEndian

// Code joins snippets.
func Code(snippets ...[]byte) []byte { return bytes.Join(snippets, nil) }

// Out8 is MOV DX, port; MOV AL, v; OUT DX, AL.
func Out8(port uint16, v byte) []byte {
	return Code(port16(port), []byte{0xb0, v, 0xee})
}

// Out16 is MOV DX, port; MOV EAX, v; OUT DX, AX.
func Out16(port, v uint16) []byte {
	return Code(port16(port), imm32(0xb8, uint32(v)), []byte{0x66, 0xef})
}

// Out32 is MOV DX, port; MOV EAX, v; OUT DX, EAX.
func Out32(port uint16, v uint32) []byte {
	return Code(port16(port), imm32(0xb8, v), []byte{0xef})
}

// In8 is MOV DX, port; IN AL, DX; MOV [addr], AL.
func In8(port uint16, addr uint32) []byte {
	return Code(port16(port), []byte{0xec}, []byte{0x88, 0x04, 0x25}, u32(addr))
}

// OutString is MOV DX, port; MOV ESI, addr; MOV ECX, n; REP OUTSB.
func OutString(port uint16, addr, n uint32) []byte {
	return Code(port16(port), imm32(0xbe, addr), imm32(0xb9, n), []byte{0xf3, 0x6e})
}

// Store32 is MOV DWORD [addr], v. addr is below 2 GiB.
func Store32(addr, v uint32) []byte { return Code([]byte{0xc7, 0x04, 0x25}, u32(addr), u32(v)) }

// StoreFar32 is MOV EBX, addr; MOV DWORD [RBX], v.
func StoreFar32(addr, v uint32) []byte { return Code(imm32(0xbb, addr), []byte{0xc7, 0x03}, u32(v)) }

// LoadFar32 is MOV EBX, addr; MOV EAX, [RBX]; MOV [to], EAX.
func LoadFar32(addr, to uint32) []byte {
	return Code(imm32(0xbb, addr), []byte{0x8b, 0x03}, []byte{0x89, 0x04, 0x25}, u32(to))
}

// Increment is LOCK INC QWORD [addr].
func Increment(addr uint32) []byte { return Code([]byte{0xf0, 0x48, 0xff, 0x04, 0x25}, u32(addr)) }

// Request is INC WORD [avail]; MOV EBX, doorbell; XOR EAX, EAX; MOV [RBX], EAX;
// MOV AX, [avail]; then PAUSE; CMP AX, [used] until they are equal. It makes a request
// through the index of a virtqueue's available ring, and waits until the index of the used
// ring catches up.
func Request(avail, used, doorbell uint32) []byte {
	return Code([]byte{0x66, 0xff, 0x04, 0x25}, u32(avail),
		imm32(0xbb, doorbell), []byte{0x31, 0xc0, 0x89, 0x03},
		[]byte{0x66, 0x8b, 0x04, 0x25}, u32(avail),
		[]byte{0xf3, 0x90, 0x66, 0x3b, 0x04, 0x25}, u32(used), []byte{0x75, 0xf4})
}

// TripleFault is MOV RAX, 1<<63; MOV EAX, [RAX]: a general protection fault,
// for which a payload in ring 0 has no handler.
func TripleFault() []byte { return []byte{0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8b, 0} }

// Forever repeats body.
func Forever(body []byte) []byte { return Code(body, []byte{0xe9}, u32(uint32(-int32(len(body)+5)))) }

// Spin is an endless loop of one instruction.
func Spin() []byte { return Forever(nil) }

// Print is Out8 of each byte.
func Print(port uint16, s string) []byte {
	var code []byte
	for _, c := range []byte(s) {
		code = append(code, Out8(port, c)...)
	}
	return code
}

func port16(port uint16) []byte { return []byte{0x66, 0xba, byte(port), byte(port >> 8)} }

func imm32(opcode byte, v uint32) []byte { return append([]byte{opcode}, u32(v)...) }

func u32(v uint32) []byte { return le.AppendUint32(nil, v) }

// Repeat is MOV ECX, n; then body, DEC ECX, JNZ, n times in all. body must not change ECX.
func Repeat(n uint32, body []byte) []byte {
	loop := Code(body, []byte{0xff, 0xc9})
	return Code(imm32(0xb9, n), loop, []byte{0x0f, 0x85}, u32(uint32(-int32(len(loop)+6))))
}

// ReadTSC is RDTSC; SHL RDX, 32; OR RAX, RDX; MOV [addr], RAX: the time-stamp
// counter.
func ReadTSC(addr uint32) []byte {
	return Code([]byte{0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x48, 0x89, 0x04, 0x25}, u32(addr))
}

// WriteMSR is MOV ECX, index; MOV EAX and EDX, v; WRMSR.
func WriteMSR(index uint32, v uint64) []byte {
	return Code(imm32(0xb9, index), imm32(0xb8, uint32(v)), imm32(0xba, uint32(v>>32)), []byte{0x0f, 0x30})
}

// Deadline is ReadTSC(addr); ADD RAX, n; MOV [addr], RAX; MOV ECX, 0x6e0; MOV RDX, RAX;
// SHR RDX, 32; WRMSR: the local APIC's timer expires in n, which is below 2^31, cycles.
func Deadline(n, addr uint32) []byte {
	return Code(ReadTSC(addr), []byte{0x48, 0x05}, u32(n), []byte{0x48, 0x89, 0x04, 0x25}, u32(addr),
		imm32(0xb9, 0x6e0), []byte{0x48, 0x89, 0xc2, 0x48, 0xc1, 0xea, 0x20, 0x0f, 0x30})
}

// Copy is MOV ESI, from; MOV EDI, to; MOV ECX, n; REP MOVSB.
func Copy(to, from, n uint32) []byte {
	return Code(imm32(0xbe, from), imm32(0xbf, to), imm32(0xb9, n), []byte{0xf3, 0xa4})
}

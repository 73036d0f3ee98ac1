package main

import (
	"maps"
	"os"

	"vmm/guest/payload"
)

// Ports of the machine (machine/layout.go).
const (
	com1      = 0x3f8
	pmSleep   = 0x600
	pmReset   = 0x602
	debugExit = 0x501
	pvpanic   = 0x505
)

var (
	hello    = payload.Print(com1, "hello\n")
	powerOff = payload.Out8(pmSleep, 5<<2|1<<5)
	reset    = payload.Out8(pmReset, 6)
)

// kernels returns the kernels for scripts: each name says what the kernel does. All except
// big and prints-more first print a hello line, and all that do not end at once spin.
func kernels() map[string][]byte {
	files := map[string][]byte{}
	for name, code := range map[string][]byte{
		"powers-off":    powerOff,
		"resets":        reset,
		"triple-faults": payload.TripleFault(),
		"panics":        payload.Out8(pvpanic, 1),
		"exits-0":       payload.Out8(debugExit, 0),
		"exits-5":       payload.Out8(debugExit, 5),
		"exits-200":     payload.Out8(debugExit, 200),
		"spins":         nil,
		"halts":         {0xfa, 0xf4, 0xeb, 0xfd},          // CLI; HLT; JMP to HLT: nothing wakes it
		"runs-away":     {0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0}, // MOV EAX, 0xd0000000; JMP RAX: nothing is there
		"exchanges":     {0xf0, 0x48, 0x0f, 0xc7, 0x0e},    // LOCK CMPXCHG16B [RSI], which KVM's emulator lacks
		"echoes":        echo(),
	} {
		files[name] = payload.ELF(payload.Code(hello, code, payload.Spin()))
	}
	files["big"] = payload.ELF(payload.Code(lines(80<<10/16), powerOff))
	files["prints-more"] = payload.ELF(payload.Code(lines(20<<10/16), powerOff)) // more than a page, but less than is kept for the host
	// A bzImage, which the scripts only corrupt: it is not a program.
	if image, err := os.ReadFile("../../boot/testdata/vmlinuz"); err == nil {
		maps.Copy(files, map[string][]byte{"bzimage": image})
	}
	return files
}

// lines prints n lines of 16 bytes.
func lines(n uint32) []byte {
	count := []byte{0xbb, byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)} // MOV EBX, n
	body := payload.Code(payload.Print(com1, "one more line..\n"), []byte{0xff, 0xcb})
	back := uint32(-int32(len(body) + 6))
	return payload.Code(count, body, []byte{0x0f, 0x85, byte(back), byte(back >> 8), byte(back >> 16), byte(back >> 24)}) // JNZ
}

// echo prints what it reads: after a q it powers off, after an r it resets.
func echo() []byte {
	raise := payload.Out8(com1+4, 3) // RTS and DTR: without them no input comes
	body := []byte{
		0x66, 0xba, 0xfd, 0x03, // MOV DX, line status
		0xec,       // IN AL, DX
		0xa8, 0x01, // TEST AL, data ready
		0x74, 0xf7, // JZ to the beginning
		0x66, 0xba, 0xf8, 0x03, // MOV DX, data
		0xec,       // IN AL, DX
		0xee,       // OUT DX, AL
		0x3c, 0x71, // CMP AL, 'q'
		0x75, byte(len(powerOff)), // JNE over it
	}
	body = append(body, powerOff...)
	// The next key is for the next life, if there is one.
	body = append(body, 0x3c, 'r', 0x75, byte(len(reset)))
	body = append(body, reset...)
	return payload.Code(raise, payload.Forever(body))
}

package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vmm/mem"
)

// A setup is struct boot_params, the zero page (x86/zero-page.rst). A bzImage
// begins with its setup header at the same offsets (x86/boot.rst), so this type
// reads both.
type setup []byte

// Offsets in a setup, named as in the kernel's documentation.
const (
	acpiRSDPAddr     = 0x070
	extRamdiskImage  = 0x0c0
	extRamdiskSize   = 0x0c4
	e820Entries      = 0x1e8
	setupHeader      = 0x1f1
	setupSects       = 0x1f1
	sysSize          = 0x1f4
	vidMode          = 0x1fa
	bootFlag         = 0x1fe
	headerLength     = 0x201
	headerMagic      = 0x202
	protocolVersion  = 0x206
	kernelVersion    = 0x20e
	typeOfLoader     = 0x210
	loadFlags        = 0x211
	code32Start      = 0x214
	ramdiskImage     = 0x218
	ramdiskSize      = 0x21c
	cmdLinePtr       = 0x228
	initrdAddrMax    = 0x22c
	kernelAlignment  = 0x230
	relocatable      = 0x234
	xloadFlags       = 0x236
	cmdlineSize      = 0x238
	payloadOffset    = 0x248
	payloadLength    = 0x24c
	setupData        = 0x250
	prefAddress      = 0x258
	initSize         = 0x260
	setupHeaderLimit = 0x290
	e820Table        = 0x2d0
)

const (
	bootFlagMagic = 0xaa55
	hdrS          = "HdrS"

	loadedHigh = 1 << 0 // loadflags
	kaslrFlag  = 1 << 1

	kernel64 = 1 << 0 // xloadflags: XLF_KERNEL_64
	above4G  = 1 << 1 // XLF_CAN_BE_LOADED_ABOVE_4G

	oldestProtocol = 0x20c // 2.12 introduced xloadflags, and with it the 64-bit entry
	modernProtocol = 0x20f // assumed for an ELF kernel, which does not say

	loaderUndefined = 0xff
	videoNormal     = 0xffff

	entry64 = 0x200 // from the start of a bzImage's protected-mode code
	sector  = 512

	linuxCmdline   = 2047 // COMMAND_LINE_SIZE of x86 minus the final NUL
	linuxInitrdMax = 0x7fffffff
)

func (s setup) u16(off int) uint16         { return binary.LittleEndian.Uint16(s[off:]) }
func (s setup) u32(off int) uint32         { return binary.LittleEndian.Uint32(s[off:]) }
func (s setup) u64(off int) uint64         { return binary.LittleEndian.Uint64(s[off:]) }
func (s setup) put16(off int, v uint16)    { binary.LittleEndian.PutUint16(s[off:], v) }
func (s setup) put32(off int, v uint32)    { binary.LittleEndian.PutUint32(s[off:], v) }
func (s setup) put64(off int, v uint64)    { binary.LittleEndian.PutUint64(s[off:], v) }
func (s setup) split(lo, hi int, v uint64) { s.put32(lo, uint32(v)); s.put32(hi, uint32(v>>32)) }

// isBzImage reports whether a file that begins with head has a setup header.
func isBzImage(head []byte) bool {
	return len(head) >= protocolVersion && setup(head).u16(bootFlag) == bootFlagMagic &&
		string(head[headerMagic:headerMagic+4]) == hdrS
}

// check returns an error if the setup header of a bzImage of size bytes is invalid.
func (s setup) check(size int64) error {
	if len(s) < setupHeaderLimit {
		return fmt.Errorf("truncated: %d bytes, not even its header; copy it again", len(s))
	}
	v := s.u16(protocolVersion)
	switch end := s.codeOffset() + s.codeSize(); {
	case v < oldestProtocol:
		return fmt.Errorf("boot protocol %d.%02d is too old: take Linux 3.8 or later, which has 2.12", v>>8, v&0xff)
	case s[loadFlags]&loadedHigh == 0:
		return errors.New("a zImage, which loads below 1 MiB: take a bzImage")
	case end-15 > size: // syssize counts in 16 bytes, rounded up
		return fmt.Errorf("truncated: %d bytes of %d; copy it again", size, end)
	case s.u32(initSize) > maxImage:
		return fmt.Errorf("wants %d MiB to start, which no kernel does: the file is damaged, copy it again", s.u32(initSize)>>20)
	case s.alignment()&(s.alignment()-1) != 0:
		return fmt.Errorf("wants an alignment of %#x, which no kernel does: the file is damaged, copy it again", s.alignment())
	}
	return nil
}

// codeOffset and codeSize give the position of the protected-mode code in the file.
func (s setup) codeOffset() int64 {
	n := int64(s[setupSects])
	if n == 0 {
		n = 4 // boot.rst, "setup_sects"
	}
	return (n + 1) * sector
}

func (s setup) codeSize() int64 { return int64(s.u32(sysSize)) * 16 }

func (s setup) alignment() uint64 { return max(uint64(s.u32(kernelAlignment)), mem.PageSize) }

// payload returns the position of the compressed kernel in a bzImage of size bytes.
func (s setup) payload(size int64) (off, n int64, err error) {
	off, n = s.codeOffset()+int64(s.u32(payloadOffset)), int64(s.u32(payloadLength))
	switch {
	case n == 0:
		return 0, 0, fmt.Errorf("its setup header names no payload: %w", errUnsupported)
	case off+n > size:
		return 0, 0, fmt.Errorf("truncated: %d bytes of %d; copy it again", size, off+n)
	case n > int64(s.u32(initSize)):
		return 0, 0, fmt.Errorf("payload of %d bytes is more than init_size: the file is damaged, copy it again", n)
	}
	return off, n, nil
}

// release returns the version string of a bzImage, or "".
func (s setup) release() string {
	off := int(s.u16(kernelVersion)) + 0x200
	if off == 0x200 || off >= len(s) || int64(off) >= s.codeOffset() {
		return ""
	}
	text, _, _ := bytes.Cut(s[off:min(len(s), off+128)], []byte{0})
	word, _, _ := strings.Cut(string(text), " ")
	return printable(word)
}

// modern returns the setup for a kernel without a header.
func modern() setup {
	s := make(setup, mem.PageSize)
	s.put16(bootFlag, bootFlagMagic)
	copy(s[headerMagic:], hdrS)
	s.put16(protocolVersion, modernProtocol)
	s[loadFlags] = loadedHigh
	s.put16(xloadFlags, kernel64|above4G)
	s.put32(initrdAddrMax, linuxInitrdMax)
	s.put32(kernelAlignment, 2<<20)
	s.put32(cmdlineSize, linuxCmdline)
	return s
}

// zeroPage returns boot_params with the loader's values, based on s, the kernel's
// setup header.
func (s setup) zeroPage(l *loader) setup {
	z := make(setup, mem.PageSize)
	end := min(headerMagic+int(s[headerLength]), setupHeaderLimit)
	if s[headerLength] == 0 { // modern
		end = setupHeaderLimit
	}
	copy(z[setupHeader:end], s[setupHeader:end])
	z.put16(vidMode, videoNormal)
	z[typeOfLoader] = loaderUndefined
	z.put64(setupData, 0)
	z.put32(cmdLinePtr, uint32(cmdlineBase))
	z.put64(acpiRSDPAddr, uint64(l.RSDP))
	z.split(ramdiskImage, extRamdiskImage, uint64(l.initrd.Base))
	z.split(ramdiskSize, extRamdiskSize, l.initrd.Size)
	z[e820Entries] = byte(len(l.memmap))
	for i, e := range l.memmap {
		off := e820Table + i*20
		z.put64(off, e.base)
		z.put64(off+8, e.size)
		z.put32(off+16, e.typ)
	}
	return z
}

// hasWord reports whether the command line contains the option as a separate word.
func hasWord(cmdline, option string) bool { return slices.Contains(strings.Fields(cmdline), option) }

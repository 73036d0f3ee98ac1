package boot

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vmm/mem"
)

// A badKernel is a file and the error message for the user.
type badKernel struct {
	name string
	file []byte
	mode Mode
	want string
}

func testBad(t *testing.T, kernels []badKernel) {
	for _, test := range kernels {
		t.Run(test.name, func(t *testing.T) {
			path := writeFile(t, "vmlinuz", test.file)
			_, err := Load(ram(t, 64), Params{Kernel: path, Mode: test.mode})
			checkError(t, err, "kernel "+path+": ", test.want)
		})
	}
}

func TestNotKernel(t *testing.T) {
	testBad(t, []badKernel{
		{"empty", nil, Auto, "empty"},
		{"text", []byte("#!/bin/sh\necho hello\n"), Auto, "but text"},
		{"noise", bytes.Repeat([]byte{0x9c, 3}, 700), Auto, "neither bzImage nor ELF"},
		{"gzip", gzipped(t, tinyELF()), Auto, "compressed with gzip: unpack it"},
		{"xz", []byte("\xfd7zXZ\x00..."), Auto, "compressed with xz"},
		{"cpio", []byte("070701000..."), Auto, "initramfs"},
		{"qcow2", []byte("QFI\xfb\x00\x00\x00\x03"), Auto, "qcow2"},
		{"deb", []byte("!<arch>\ndebian-binary"), Auto, "package"},
		{"arm64", append(make([]byte, 0x38), "ARM\x64...."...), Auto, "arm64"},
		{"efi program", append([]byte("MZ"), make([]byte, 600)...), Auto, "EFI program"},
		{"multiboot", append(make([]byte, 4096), multiboot()...), Auto, "a multiboot kernel, which is not supported"},
		{"multiboot 2", append(make([]byte, 4096), multiboot2()...), Auto, "a multiboot kernel"},
		{"no checksum", append(make([]byte, 4096), le32(0x1badb002)...), Auto, "neither bzImage nor ELF"},
		{"disk", append(make([]byte, 510), 0x55, 0xaa), Auto, "disk image"},
	})
}

func TestBzImageErrors(t *testing.T) {
	good, lz4 := packed(t, "gzip"), packed(t, "lz4")
	set := func(edit func(setup)) []byte { return bzImage(good, edit) }
	noNote := newELF()
	noNote.bodies[2] = nil
	testBad(t, []badKernel{
		{"old protocol", set(func(s setup) { s.put16(protocolVersion, 0x20b) }), Auto, "protocol 2.11 is too old"},
		{"zImage", set(func(s setup) { s[loadFlags] = 0 }), Auto, "zImage"},
		{"32-bit", set(func(s setup) { s.put16(xloadFlags, 0) }), Auto, "32-bit kernel"},
		{"32-bit, bzimage", set(func(s setup) { s.put16(xloadFlags, 0) }), BzImage, "32-bit kernel"},
		{"truncated", bzImage(good)[:4000], Auto, "truncated: 4000 bytes of"},
		{"truncated header", bzImage(good)[:0x250], Auto, "truncated: 592 bytes, not even its header"},
		{"truncated payload", set(func(s setup) { s.put32(payloadLength, 1<<20) }), Auto, "truncated"},
		{"payload too long", bzImage(make([]byte, 2<<20), func(s setup) { s.put32(initSize, 1<<20) }), Auto, "more than init_size"},
		{"giant init_size", set(func(s setup) { s.put32(initSize, 0xffffffff) }), Auto, "4095 MiB"},
		{"odd alignment", set(func(s setup) { s.put32(kernelAlignment, 0x123456) }), Auto, "alignment"},
		{"bad address", set(func(s setup) { s.put64(prefAddress, 0x1000) }), BzImage, "damaged"},
		{"small init_size", set(func(s setup) { s.put32(initSize, 0x1000) }), BzImage, "damaged"},
		{"corrupt", bzImage(flip(good, 500)), Auto, "corrupt payload (gzip:"},
		{"corrupt lz4", bzImage(append(bytes.Clone(lz4[:2000]), lz4[len(lz4)-4:]...)), Auto, "corrupt payload (lz4:"},
		{"too big unpacked", bzImage(good, func(s setup) { s.put32(initSize, 0x2000) }), Auto, "corrupt payload (gzip: unpacked size"},
		{"no PVH note", bzImage(gzipped(t, noNote.bytes())), PVH, "no PVH entry"},
		{"unknown payload", bzImage([]byte("????????")), Direct, "no known compression"},
	})
}

func TestELFErrors(t *testing.T) {
	changed := func(edit func(*elfImage)) []byte {
		k := newELF()
		edit(k)
		return k.bytes()
	}
	header := func(off int, v ...byte) []byte {
		b := tinyELF()
		copy(b[off:], v)
		return b
	}
	testBad(t, []badKernel{
		{"ELF, bzimage", tinyELF(), BzImage, "cannot unpack itself"},
		{"ELF, no PVH note", changed(func(k *elfImage) { k.bodies[2] = nil }), PVH, "no PVH entry"},
		{"ELF, entry is PVH's alone", changed(func(k *elfImage) { k.header.Entry = pvhAddr }), Direct, "a 32-bit entry only"},
		{"ELF, PVH outside", changed(func(k *elfImage) { k.bodies[2] = note("Xen", 18, le32(0x100)) }), PVH, "no PVH entry"},
		{"ELF, virtual entry", changed(func(k *elfImage) { k.header.Entry, k.bodies[2] = 0xffffffff81000000, nil }), Auto, "neither at a physical address"},
		{"ELF 32", tinyELF32(nil), Auto, "32-bit ELF"},
		{"ELF 64 of an i386", changed(func(k *elfImage) { k.header.Machine, k.bodies[2] = uint16(elf.EM_386), nil }), Auto, "32-bit ELF"},
		{"ELF multiboot", changed(func(k *elfImage) { k.bodies[0], k.bodies[2] = append(multiboot(), 0xf4), nil }), Auto, "a multiboot kernel, which is not supported"},
		{"ELF multiboot 2, direct", changed(func(k *elfImage) { k.bodies[0], k.bodies[2] = append(multiboot2(), 0xf4), nil }), Direct, "a multiboot kernel"},
		{"ELF arm64", header(18, byte(elf.EM_AARCH64)), Auto, "EM_AARCH64"},
		{"ELF big-endian", header(5, 2), Auto, "big-endian"},
		{"ELF class", header(4, 9), Auto, "damaged ELF"},
		{"module", header(16, byte(elf.ET_REL)), Auto, "kernel module"},
		{"ELF head only", tinyELF()[:40], Auto, "not an ELF kernel"},
		{"ELF without headers", tinyELF()[:100], Auto, "program headers"},
		{"ELF truncated", tinyELF()[:9000], Auto, "truncated ELF"},
		{"ELF entsize", header(54, 57), Auto, "program headers"},
		{"ELF without segments", header(56, 0, 0), Auto, "0 segments"},
		{"ELF of many segments", header(56, 0xff), Auto, "255 segments"},
		{"ELF low", changed(func(k *elfImage) { k.progs[0].Paddr = 0x7000 }), Auto, "below 1 MiB"},
		{"ELF overlap", changed(func(k *elfImage) { k.progs[1].Paddr = textAddr }), Auto, "over another"},
		{"ELF bigger in file", changed(func(k *elfImage) { k.progs[1].Memsz = 1 }), Auto, "not a kernel"},
		{"ELF giant", changed(func(k *elfImage) { k.progs[1].Memsz = 1 << 60 }), Auto, "not a kernel"},
		{"ELF at the end", changed(func(k *elfImage) { k.progs[1].Paddr = ^uint64(0) - 100 }), Auto, "not a kernel"},
		{"ELF nothing", changed(func(k *elfImage) { k.progs, k.bodies = k.progs[2:], k.bodies[2:] }), Auto, "without anything to load"},
		{"ELF notes", changed(func(k *elfImage) { k.bodies[2] = make([]byte, 2<<20) }), Auto, "ELF notes of"},
	})
}

// checkError checks that err is a one-line error for the user.
func checkError(t *testing.T, err error, prefix, want string) {
	t.Helper()
	var input *InputError
	switch {
	case err == nil:
		t.Error("no error")
	case !errors.As(err, &input):
		t.Errorf("not an InputError: %v", err)
	case !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n"):
		t.Errorf("%q, want %s...%s", err, prefix, want)
	}
}

func TestFileErrors(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	kernel, empty := writeFile(t, "vmlinuz", bzImage(packed(t, "gzip"))), writeFile(t, "empty", nil)
	secret := writeFile(t, "secret", []byte("x"))
	if err := os.Chmod(secret, 0); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                         "no path",
		dir:                        "a directory, not a file",
		fifo:                       "a pipe, not a file",
		"/dev/null":                "a device, not a file",
		filepath.Join(dir, "none"): "no such file",
		kernel + "/x":              "not a directory",
		empty:                      "empty",
		secret:                     "permission denied",
	} {
		if path == secret && os.Geteuid() == 0 {
			continue // root can read everything
		}
		_, err := Load(ram(t, 64), Params{Kernel: path})
		checkError(t, err, strings.TrimSpace("kernel "+path)+": ", want)
		_, err = Load(ram(t, 64), Params{Kernel: kernel, Initrds: []string{kernel, path}})
		checkError(t, err, strings.TrimSpace("initrd "+path)+": ", want)
	}
}

func TestCmdlineErrors(t *testing.T) {
	kernel := writeFile(t, "vmlinuz", bzImage(packed(t, "gzip"), func(s setup) { s.put32(cmdlineSize, 255) }))
	if _, err := Load(ram(t, 64), Params{Kernel: kernel, Cmdline: strings.Repeat("x", 255)}); err != nil {
		t.Error(err)
	}
	_, err := Load(ram(t, 64), Params{Kernel: kernel, Cmdline: strings.Repeat("x", 256)})
	checkError(t, err, "command line: ", "256 bytes, this kernel takes 255")
	_, err = Load(ram(t, 64), Params{Kernel: kernel, Cmdline: "a\x00b"})
	checkError(t, err, "command line: ", "NUL")
	// Whatever the kernel says, the space for the command line is limited.
	kernel = writeFile(t, "vmlinuz", bzImage(packed(t, "gzip"), func(s setup) { s.put32(cmdlineSize, 0xffffffff) }))
	_, err = Load(ram(t, 64), Params{Kernel: kernel, Cmdline: strings.Repeat("x", 1<<20)})
	checkError(t, err, "command line: ", "takes 65535")
	if _, err := Load(ram(t, 64), Params{Kernel: kernel, Mode: "efi"}); err == nil {
		t.Error("unknown mode")
	}
}

// TestMemoryErrors follows the advice that every error gives.
func TestMemoryErrors(t *testing.T) {
	image := bzImage(packed(t, "gzip"))
	kernel, vmlinux := writeFile(t, "vmlinuz", image), writeFile(t, "vmlinux", tinyELF())
	small, big := writeFile(t, "small", make([]byte, 3<<20)), writeFile(t, "big", make([]byte, 40<<20))
	for _, test := range []struct {
		name string
		ram  uint64 // MiB
		p    Params
		want string
	}{
		{"kernel", 8, Params{Kernel: kernel}, "give it at least 17 MiB"},
		{"kernel, but not init_size", 19, Params{Kernel: kernel}, "give it at least 20 MiB"},
		{"less than init_size", 2, Params{Kernel: kernel}, "give it at least 20 MiB"},
		{"kernel by itself", 18, Params{Kernel: kernel, Mode: BzImage}, "give it at least 20 MiB"},
		{"ELF", 16, Params{Kernel: vmlinux}, "give it at least"},
		{"kernel and initrd", 16, Params{Kernel: kernel, Mode: BzImage, Initrds: []string{small}}, "give it at least 23 MiB"},
		{"initrd", 21, Params{Kernel: kernel, Initrds: []string{small}}, "give it at least 23 MiB"},
		{"initrds", 32, Params{Kernel: kernel, Initrds: []string{big, small}}, "give it at least 63 MiB"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Load(ram(t, test.ram), test.p)
			checkError(t, err, "", test.want)
			for err != nil && test.ram < 100 {
				_, advice, _ := strings.Cut(err.Error(), "at least ")
				if _, e := fmt.Sscanf(advice, "%d MiB", &test.ram); e != nil {
					t.Fatal(err)
				}
				_, err = Load(ram(t, test.ram), test.p)
			}
		})
	}
	low := writeFile(t, "vmlinuz", bzImage(packed(t, "gzip"), func(s setup) { s.put32(initrdAddrMax, 32<<20); s.put16(xloadFlags, kernel64) }))
	_, err := Load(ram(t, 64), Params{Kernel: low, Initrds: []string{big}})
	checkError(t, err, "initrd "+big, "below 32 MiB only: make it smaller")
}

// TestShrunk shortens a file after it was opened.
func TestShrunk(t *testing.T) {
	path := writeFile(t, "initrd", []byte("0123456789"))
	f, err := openFile(nil, "initrd", path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
	checkError(t, f.readFull(make([]byte, f.size), 0), "initrd "+path, "became shorter")
}

// TestHeap uses memory into which no file can be mapped.
func TestHeap(t *testing.T) {
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 32<<20)})
	if _, err := Load(m, Params{Kernel: writeFile(t, "vmlinuz", bzImage(packed(t, "gzip")))}); err != nil {
		t.Fatal(err)
	}
	checkImage(t, m)
}

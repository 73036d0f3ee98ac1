package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"vmm/mem"
)

func TestMode(t *testing.T) {
	for in, want := range map[string]Mode{"": Auto, "auto": Auto, "Direct": Direct, "bzImage": BzImage, "PVH": PVH} {
		var m Mode
		if err := m.Set(in); err != nil || m != want {
			t.Errorf("Set(%q): %v, %v", in, m, err)
		}
	}
	var m Mode
	if m.String() != "auto" || m.Set("efi") == nil {
		t.Errorf("zero mode is %q, Set(efi) succeeded", m)
	}
	if err := json.Unmarshal([]byte(`"direct"`), &m); err != nil || m != Direct {
		t.Errorf("from JSON: %v, %v", m, err)
	}
}

// checkLong checks the 64-bit mode state and the tables that it points to.
func checkLong(t *testing.T, m *mem.Memory, e *Entry) {
	t.Helper()
	if e.CR0 != 0x80000011 || e.CR4 != 0x20 || e.EFER != 0x500 || e.CR3 != 0x9000 || e.SI != 0x7000 || e.BX != 0 {
		t.Errorf("registers %+v", e)
	}
	if !e.CS.L || e.CS.DB || e.TR.Type != 11 || e.TR.Limit != 0x67 {
		t.Errorf("segments %+v", e)
	}
	checkGDT(t, m, e, 0x00af9b000000ffff)
	for _, a := range []uint64{0, 0x7000, textAddr, 1<<30 - 1, 3<<30 + 12345, 4<<30 - 1} {
		if got := translate(t, m, e.CR3, a); got != a {
			t.Errorf("page tables lead %#x to %#x", a, got)
		}
	}
}

// translate walks the page tables as a vCPU would.
func translate(t *testing.T, m *mem.Memory, cr3, a uint64) uint64 {
	table := cr3
	for shift := 39; ; shift -= 9 {
		e := binary.LittleEndian.Uint64(at(t, m, mem.Addr(table+a>>shift&0x1ff*8), 8))
		if e&3 != 3 {
			t.Fatalf("%#x is not mapped at level %d: %#x", a, shift, e)
		}
		table = e & 0x000f_ffff_ffff_f000
		if e&pteLarge != 0 {
			return table + a&(1<<shift-1)
		}
	}
}

func checkGDT(t *testing.T, m *mem.Memory, e *Entry, code uint64) {
	t.Helper()
	if e.CS.Selector != 0x10 || e.DS.Selector != 0x18 || e.GDTLimit != 0x2f {
		t.Errorf("selectors %#x, %#x, limit %#x", e.CS.Selector, e.DS.Selector, e.GDTLimit)
	}
	gdt := at(t, m, mem.Addr(e.GDT), 0x30)
	for i, want := range []uint64{0, 0, code, 0x00cf93000000ffff, 0x00008b0018000067, 0} {
		if got := binary.LittleEndian.Uint64(gdt[i*8:]); got != want {
			t.Errorf("GDT[%#x] = %#016x, want %#016x", i*8, got, want)
		}
	}
}

func zeroPageOf(t *testing.T, m *mem.Memory) setup {
	return setup(at(t, m, zeroPageBase, mem.PageSize))
}

func TestDirect(t *testing.T) {
	for tool := range tools {
		t.Run(tool, func(t *testing.T) {
			m := ram(t, 64)
			e, err := Load(m, Params{Kernel: writeFile(t, "vmlinuz", bzImage(packed(t, tool))), Cmdline: "console=ttyS0", RSDP: 0xe0000})
			if err != nil {
				t.Fatal(err)
			}
			if e.Mode != Direct || e.IP != textAddr || e.Release != "6.1.0-tiny" || e.Cached {
				t.Errorf("entry %+v", e)
			}
			checkImage(t, m)
			checkLong(t, m, e)
			z := zeroPageOf(t, m)
			if z[typeOfLoader] != 0xff || z[loadFlags] != 3 || z.u16(vidMode) != 0xffff ||
				z.u64(acpiRSDPAddr) != 0xe0000 || z.u32(ramdiskSize) != 0 || z.u16(protocolVersion) != 0x20f || z.u32(initSize) != 4<<20 {
				t.Errorf("zero page:\n% x", []byte(z[:setupHeaderLimit]))
			}
			if got := at(t, m, mem.Addr(z.u32(cmdLinePtr)), 14); string(got) != "console=ttyS0\x00" {
				t.Errorf("command line %q", got)
			}
		})
	}
}

// TestZeroPage checks the fields that do not depend on the kernel's compression.
func TestZeroPage(t *testing.T) {
	m := ram(t, 64)
	kernel := writeFile(t, "vmlinuz", bzImage(packed(t, "gzip")))
	p := Params{Kernel: kernel, Cmdline: "quiet nokaslr", Reserved: []mem.Range{{Base: 0xe0000, Size: 0x20000}, {Base: 0x3000000, Size: 0x1000}, {Base: 0xe0000000, Size: 0x10000000}}}
	if _, err := Load(m, p); err != nil {
		t.Fatal(err)
	}
	z := zeroPageOf(t, m)
	if z[loadFlags]&kaslrFlag != 0 {
		t.Error("KASLR_FLAG in spite of nokaslr")
	}
	want := []mapEntry{{0, 0xa0000, 1}, {0xe0000, 0x20000, 2}, {0x100000, 0x2f00000, 1}, {0x3000000, 0x1000, 2}, {0x3001000, 0xfff000, 1}, {0xe0000000, 0x10000000, 2}}
	if int(z[e820Entries]) != len(want) {
		t.Fatalf("%d entries in the map", z[e820Entries])
	}
	for i, w := range want {
		b := z[e820Table+20*i:]
		if got := (mapEntry{b.u64(0), b.u64(8), b.u32(16)}); got != w {
			t.Errorf("map entry %d: %+v, want %+v", i, got, w)
		}
	}
	if z[0x1ef] != 0 {
		t.Error("sentinel is set: the kernel would distrust the page")
	}
}

// TestSeed: kernels booted by the Linux protocol find a new seed each time.
func TestSeed(t *testing.T) {
	vmlinuz, vmlinux := writeFile(t, "vmlinuz", bzImage(packed(t, "gzip"))), writeFile(t, "vmlinux", tinyELF())
	seen := map[string]bool{}
	for _, p := range []Params{{Kernel: vmlinuz}, {Kernel: vmlinuz}, {Kernel: vmlinuz, Mode: BzImage}, {Kernel: vmlinux}} {
		m := ram(t, 64)
		if _, err := Load(m, p); err != nil {
			t.Fatal(err)
		}
		node := setup(at(t, m, mem.Addr(zeroPageOf(t, m).u64(setupData)), 16+32))
		if node.u64(0) != 0 || node.u32(8) != 9 || node.u32(12) != 32 {
			t.Errorf("%v: node % x", p, []byte(node))
		}
		if seed := string(node[16:]); seen[seed] || seed == string(make([]byte, 32)) {
			t.Errorf("%v: seed % x", p, seed)
		} else {
			seen[seed] = true
		}
	}
}

func TestHasWord(t *testing.T) {
	for line, want := range map[string]bool{"": false, "nokaslr": true, "a nokaslr b": true, "nokaslrs": false, "x=nokaslr": false} {
		if hasWord(line, "nokaslr") != want {
			t.Errorf("%q: %v", line, !want)
		}
	}
}

func TestBzImage(t *testing.T) {
	image := bzImage(packed(t, "xz"))
	m := ram(t, 64)
	e, err := Load(m, Params{Kernel: writeFile(t, "vmlinuz", image), Mode: BzImage})
	if err != nil {
		t.Fatal(err)
	}
	if e.Mode != BzImage || e.IP != textAddr+0x200 {
		t.Errorf("entry %+v", e)
	}
	checkLong(t, m, e)
	code := image[5*sector:]
	if !bytes.Equal(at(t, m, textAddr, len(code)), code) {
		t.Error("protected-mode code is not in place")
	}
	if z := zeroPageOf(t, m); z.u32(code32Start) != textAddr || z[loadFlags] != loadedHigh {
		t.Errorf("code32_start %#x, loadflags %#x", z.u32(code32Start), z[loadFlags])
	}
}

// TestBzImagePlace reserves the kernel's preferred address.
func TestBzImagePlace(t *testing.T) {
	taken := []mem.Range{{Base: 0x1100000, Size: 0x1000}}
	image := bzImage(packed(t, "xz"))
	e, err := Load(ram(t, 64), Params{Kernel: writeFile(t, "vmlinuz", image), Mode: BzImage, Reserved: taken})
	if err != nil || e.IP != 0x1200200 {
		t.Errorf("relocatable kernel: entry %+v, %v", e, err)
	}
	setup(image)[relocatable] = 0
	if e, err := Load(ram(t, 64), Params{Kernel: writeFile(t, "vmlinuz", image), Mode: BzImage, Reserved: taken}); err == nil {
		t.Errorf("fixed kernel at %#x", e.IP)
	}
}

func TestELF(t *testing.T) {
	m := ram(t, 64)
	e, err := Load(m, Params{Kernel: writeFile(t, "vmlinux", tinyELF()), Cmdline: "quiet"})
	if err != nil {
		t.Fatal(err)
	}
	if e.Mode != Direct || e.IP != textAddr {
		t.Errorf("entry %+v", e)
	}
	checkImage(t, m)
	checkLong(t, m, e)
	z := zeroPageOf(t, m)
	if string(z[headerMagic:headerMagic+4]) != hdrS || z.u16(bootFlag) != 0xaa55 || z.u16(protocolVersion) < oldestProtocol || z[loadFlags] != 3 {
		t.Errorf("zero page:\n% x", []byte(z[:setupHeaderLimit]))
	}
}

func TestPVH(t *testing.T) {
	note := note("Xen", 18, le32(pvhAddr))
	virtual, same, i386, multi := newELF(), newELF(), newELF(), newELF()
	virtual.header.Entry = 0xffffffff81000000
	same.header.Entry = pvhAddr
	i386.header.Machine = uint16(elf.EM_386)
	multi.bodies[0] = append(multiboot(), multi.bodies[0]...)[:len(multi.bodies[0])]
	for name, test := range map[string]struct {
		file []byte
		mode Mode
	}{
		"ELF":                {tinyELF(), PVH},
		"bzImage":            {bzImage(packed(t, "zstd")), PVH},
		"32-bit ELF":         {tinyELF32(note), Auto},
		"ELF, entry virtual": {virtual.bytes(), Auto},
		// The entry points of these are 32-bit code.
		"ELF, entry is PVH's":  {same.bytes(), Auto},
		"ELF of 64 bits, i386": {i386.bytes(), Auto},
		"ELF with multiboot":   {multi.bytes(), Auto},
	} {
		t.Run(name, func(t *testing.T) {
			m := ram(t, 64)
			initrd := writeFile(t, "initrd", []byte("initrd!"))
			e, err := Load(m, Params{Kernel: writeFile(t, "vmlinux", test.file), Mode: test.mode, Cmdline: "quiet", Initrds: []string{initrd}, RSDP: 0xe0010})
			if err != nil {
				t.Fatal(err)
			}
			if e.Mode != PVH || e.IP != pvhAddr || e.BX != 0x6000 || e.SI != 0 || e.CR0 != 0x11 || e.CR4 != 0 || e.EFER != 0 || e.CS.L || !e.CS.DB {
				t.Errorf("entry %+v", e)
			}
			checkGDT(t, m, e, 0x00cf9b000000ffff)
			checkStartInfo(t, m, e)
		})
	}
}

func checkStartInfo(t *testing.T, m *mem.Memory, e *Entry) {
	info := setup(at(t, m, mem.Addr(e.BX), mem.PageSize))
	if info.u32(0) != 0x336ec578 || info.u32(4) != 1 || info.u32(12) != 1 || info.u64(32) != 0xe0010 || info.u32(48) != 2 {
		t.Errorf("start_info % x", []byte(info[:56]))
	}
	if got := at(t, m, mem.Addr(info.u64(24)), 6); string(got) != "quiet\x00" {
		t.Errorf("command line %q", got)
	}
	module := setup(at(t, m, mem.Addr(info.u64(16)), 32))
	if got := at(t, m, mem.Addr(module.u64(0)), int(module.u64(8))); string(got) != "initrd!\x00" {
		t.Errorf("module %q", got)
	}
	ram := setup(at(t, m, mem.Addr(info.u64(40)), 48))
	if ram.u64(8) != 0xa0000 || ram.u32(16) != 1 || ram.u64(24) != 0x100000 || ram.u64(32) != 63<<20 {
		t.Errorf("memory map % x", []byte(ram))
	}
}

// TestFallback uses payloads that only the kernel itself can unpack.
func TestFallback(t *testing.T) {
	odd := newELF()
	odd.header.Entry, odd.bodies[2] = 0, note("GNU", 3, nil)
	gz := gzipped(t, odd.bytes())
	for name, image := range map[string][]byte{
		"unknown compression": bzImage([]byte("some new compression")),
		"no payload":          bzImage(nil),
		"no ELF":              bzImage(gzipped(t, []byte("this is no ELF"))),
		"no entry":            bzImage(gz),
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			kernel := writeFile(t, "vmlinuz", image)
			e, err := Load(ram(t, 64), Params{Kernel: kernel, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil || e.Mode != BzImage {
				t.Fatalf("%+v, %v", e, err)
			}
			if !strings.Contains(log.String(), "unpack itself") || !strings.Contains(log.String(), "why=") {
				t.Errorf("log: %s", &log)
			}
			if err := e.Finish(); err != nil {
				t.Error(err)
			}
			if _, err := Load(ram(t, 64), Params{Kernel: kernel, Mode: Direct}); err == nil {
				t.Error("mode direct took it")
			}
		})
	}
}

func TestInitrds(t *testing.T) {
	kernel := writeFile(t, "vmlinuz", bzImage(packed(t, "gzip")))
	a, b := writeFile(t, "a", []byte("first")), writeFile(t, "b", []byte("second!!"))
	m := ram(t, 64)
	if _, err := Load(m, Params{Kernel: kernel, Initrds: []string{a, b}}); err != nil {
		t.Fatal(err)
	}
	z := zeroPageOf(t, m)
	if z.u32(ramdiskImage) != 64<<20-mem.PageSize || z.u32(ramdiskSize) != 16 {
		t.Errorf("initrd at %#x+%#x", z.u32(ramdiskImage), z.u32(ramdiskSize))
	}
	if got := at(t, m, mem.Addr(z.u32(ramdiskImage)), 16); string(got) != "first\x00\x00\x00second!!" {
		t.Errorf("initrd %q", got)
	}
}

// TestInitrdPlace uses kernels that limit the initrd's address, and memory above
// 4 GiB.
func TestInitrdPlace(t *testing.T) {
	initrd := writeFile(t, "initrd", make([]byte, 1<<20))
	for _, test := range []struct {
		max  uint32
		xlf  uint16
		want uint64 // 0: an error
	}{
		{0x7fffffff, 0x7f, 63 << 20},
		{0x14fffff, 0x7f, 20 << 20},       // just after init_size
		{0x14ffffe, 0x7f, 4<<30 + 15<<20}, // too little room after init_size, although the kernel's segments end earlier
		{0x1ffffff, 0x7f, 31 << 20},
		{0x1200fff, 0x7f, 4<<30 + 15<<20}, // the kernel ends above the limit
		{0x1200fff, kernel64, 0},
	} {
		m, err := mem.Map(mem.Range{Base: 0, Size: 64 << 20}, mem.Range{Base: 4 << 30, Size: 16 << 20})
		if err != nil {
			t.Fatal(err)
		}
		kernel := writeFile(t, "vmlinuz", bzImage(packed(t, "gzip"), func(s setup) { s.put32(initrdAddrMax, test.max); s.put16(xloadFlags, test.xlf) }))
		_, err = Load(m, Params{Kernel: kernel, Initrds: []string{initrd}})
		z := zeroPageOf(t, m)
		if got := uint64(z.u32(extRamdiskImage))<<32 | uint64(z.u32(ramdiskImage)); got != test.want || (err != nil) != (test.want == 0) {
			t.Errorf("initrd_addr_max %#x, xloadflags %#x: at %#x, %v", test.max, test.xlf, got, err)
		}
		m.Close()
	}
}

func TestUsable(t *testing.T) {
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 0x200000)}, mem.Region{Base: 0x400000, Bytes: make([]byte, 0x1000)})
	got := usable(m, []mem.Range{{Base: 0, Size: 0x1000}, {Base: 0x1ff000, Size: 0x202000}})
	want := []mem.Range{{Base: 0x1000, Size: 0x9f000}, {Base: 0x100000, Size: 0xff000}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%x, want %x", got, want)
	}
	if _, err := Load(m, Params{Kernel: filepath.Join(t.TempDir(), "none"), Reserved: []mem.Range{{Base: 0x7000, Size: 1}}}); err == nil || !strings.Contains(err.Error(), "boot structures") {
		t.Errorf("boot structures in reserved memory: %v", err)
	}
	if _, err := memoryMap(make([]mem.Range, 129), nil); err == nil {
		t.Error("memory map of 129 entries")
	}
}

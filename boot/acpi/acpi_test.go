package acpi

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata")

const base = 0xe0000

// config is a machine with everything that the package knows, and with a virtio-mmio
// device and a PCI root bridge from outside.
func config(cpus int) Config {
	c := Config{
		COM1:    Serial{0x3f8, 4},
		RTC:     true,
		Century: 0x32,
		Power: Power{
			ResetPort: 0x600, ResetValue: 1,
			SleepControl: 0x601, SleepStatus: 0x602,
			ButtonGSI: 9,
		},
		PVPanic: 0x505,
		Devices: []Term{virtioMMIO(0, 0xd0000000, 12)},
	}
	PCIRoot{
		ECAM:    0xe0000000,
		Windows: []Window{{0xc0000000, 0xcfffffff}, {1 << 40, 1<<40 + 1<<36 - 1}},
		Ports:   Window{0x1000, 0xffff},
		GSIs:    []uint32{16, 17, 18, 19, 20, 21, 22, 23},
	}.Describe(&c)
	for id := range cpus {
		c.APICIDs = append(c.APICIDs, uint32(id))
	}
	return c
}

func virtioMMIO(n int, base, gsi uint32) Term {
	return Device(fmt.Sprintf("V%03X", n),
		Name("_HID", String("LNRO0005")),
		Name("_UID", Int(uint64(n))),
		Name("_CCA", Int(1)),
		Name("_CRS", ResourceTemplate(
			Memory32Fixed(base, 0x200),
			Interrupt(Edge|ActiveHigh, gsi))))
}

// build returns the tables by signature. It finds the DSDT through the FADT, as a
// guest does, and checks every address, length and checksum on the way.
func build(t *testing.T, c Config) (whole []byte, tables map[string][]byte) {
	t.Helper()
	b, err := Build(base, 128<<10, c)
	if err != nil {
		t.Fatal(err)
	}
	sum := func(what string, p []byte) {
		var s uint8
		for _, v := range p {
			s += v
		}
		if s != 0 {
			t.Errorf("%s: checksum off by %d", what, s)
		}
	}
	le := binary.LittleEndian
	tables = map[string][]byte{}
	table := func(addr uint64) []byte {
		p := b[addr-base:]
		p = p[:le.Uint32(p[4:])]
		name := string(p[:4])
		sum(name, p)
		if tables[name] != nil || addr%4 != 0 {
			t.Errorf("%s at %#x", name, addr)
		}
		tables[name] = p
		return p
	}
	if string(b[:8]) != "RSD PTR " || b[15] != 2 || le.Uint32(b[20:]) != 36 {
		t.Errorf("RSDP % x", b[:36])
	}
	sum("RSDP, revision 0", b[:20])
	sum("RSDP", b[:36])
	xsdt := table(le.Uint64(b[24:]))[36:]
	for ; len(xsdt) > 0; xsdt = xsdt[8:] {
		if p := table(le.Uint64(xsdt)); string(p[:4]) == "FACP" {
			if uint64(le.Uint32(p[40:])) != le.Uint64(p[140:]) {
				t.Error("DSDT and X_DSDT differ")
			}
			table(le.Uint64(p[140:]))
		}
	}
	return b, tables
}

func TestGolden(t *testing.T) {
	for _, cpus := range []int{1, 4, 300} {
		got, _ := build(t, config(cpus))
		file := filepath.Join("testdata", fmt.Sprintf("%dcpu.bin", cpus))
		if *update {
			if err := os.WriteFile(file, got, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			i := 0
			for i < min(len(got), len(want)) && got[i] == want[i] {
				i++
			}
			t.Errorf("%s differs from byte %#x; if that is meant, run go test -update", file, i)
		}
	}
}

// TestFlags checks what a guest concludes from the FADT alone.
func TestFlags(t *testing.T) {
	all, none := config(1), Config{APICIDs: []uint32{0}}
	all.I8042 = true
	for _, test := range []struct {
		name  string
		c     Config
		flags uint32
		arch  uint16
	}{
		{"all", all, 0x101475, 0x06},
		{"no keyboard", config(1), 0x101475, 0x04},
		{"nothing", none, 0x101075, 0x24},
	} {
		_, tables := build(t, test.c)
		f := tables["FACP"]
		flags, arch := binary.LittleEndian.Uint32(f[112:]), binary.LittleEndian.Uint16(f[109:])
		if flags != test.flags || arch != test.arch {
			t.Errorf("%s: flags %#x, IAPC_BOOT_ARCH %#x; want %#x, %#x", test.name, flags, arch, test.flags, test.arch)
		}
	}
	_, tables := build(t, none)
	if d := tables["DSDT"]; bytes.Contains(d, []byte("_CRS")) || bytes.Contains(d, []byte("_S5_")) {
		t.Error("a machine without devices has some")
	}
}

// TestAPICIDs: an ID that does not fit in a byte, or is 255, gets an x2APIC entry.
func TestAPICIDs(t *testing.T) {
	c := Config{APICIDs: []uint32{254, 255, 0, math.MaxUint32}}
	_, tables := build(t, c)
	var got []string
	for b := tables["APIC"][44:]; len(b) > 0; b = b[b[1]:] {
		got = append(got, fmt.Sprintf("% x", b[:b[1]]))
	}
	want := []string{
		"00 08 00 fe 01 00 00 00",
		"09 10 00 00 ff 00 00 00 01 00 00 00 01 00 00 00",
		"00 08 02 00 01 00 00 00",
		"09 10 00 00 ff ff ff ff 01 00 00 00 03 00 00 00",
		"01 0c 00 00 00 00 c0 fe 00 00 00 00",
		"04 06 ff 00 00 01",
		"0a 0c 00 00 ff ff ff ff 01 00 00 00",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSize: the tables of the largest supported machine fit in the BIOS area.
func TestSize(t *testing.T) {
	c := config(maxCPUs / 4)
	for i := range 1024 {
		c.Devices = append(c.Devices, virtioMMIO(i+1, 0xd0001000+uint32(i)<<12, 16+uint32(i)))
	}
	if b, _ := build(t, c); len(b) < 1024*(30+60) {
		t.Errorf("%d bytes cannot be all", len(b))
	}
}

func TestResetCode(t *testing.T) {
	got := Power{ResetPort: 0x1234, ResetValue: 0x56}.ResetCode()
	// mov dx, 1234h; mov al, 56h; out dx, al; hlt; jmp to the hlt
	if want := unhex(t, "ba 34 12 b0 56 ee f4 eb fd"); !bytes.Equal(got, want) || ResetVector+len(got) > 1<<20 {
		t.Errorf("% x, want % x", got, want)
	}
	if got := (Power{}).ResetCode(); got != nil {
		t.Errorf("% x without a port", got)
	}
}

func TestErrors(t *testing.T) {
	ids := func(n int) []uint32 { return config(n).APICIDs }
	for _, test := range []struct {
		base, size uint64
		c          Config
		want       string
	}{
		{base, 1 << 20, Config{}, "0 CPUs"},
		{base, 1 << 20, Config{APICIDs: ids(4097)}, "4097 CPUs"},
		{base, 1 << 20, Config{APICIDs: []uint32{1, 2, 1}}, "two CPUs with APIC id 1"},
		{base, 1 << 20, Config{APICIDs: ids(1), Tables: [][]byte{nil}}, "a table of 0 bytes"},
		{base, 1 << 20, Config{APICIDs: ids(1), Power: Power{SleepControl: 0x600}}, "sleep registers"},
		{base, 4096, Config{APICIDs: ids(300)}, "room for 4096"},
		{ResetVector - 512, 1 << 20, Config{APICIDs: ids(300)}, "room for 512"},
		{base + 1, 1 << 20, Config{APICIDs: ids(1)}, "0xe0001"},
		{1 << 20, 1 << 20, Config{APICIDs: ids(1)}, "0x100000"},
		{0, 1 << 20, Config{APICIDs: ids(1)}, "0x0"},
	} {
		_, err := Build(test.base, test.size, test.c)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}

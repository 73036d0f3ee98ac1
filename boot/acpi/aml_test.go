package acpi

import (
	"bytes"
	"encoding/hex"
	"math"
	"strings"
	"testing"
)

func TestTerms(t *testing.T) {
	for _, test := range []struct {
		asl  string
		got  Term
		want string
	}{
		{"Zero", Int(0), "00"},
		{"One", Int(1), "01"},
		{"Ones", Int(math.MaxUint64), "ff"},
		{"0x02", Int(2), "0a 02"},
		{"0xff", Int(0xff), "0a ff"},
		{"0x100", Int(0x100), "0b 00 01"},
		{"0xffff", Int(0xffff), "0b ff ff"},
		{"0x10000", Int(0x10000), "0c 00 00 01 00"},
		{"0xffffffff", Int(0xffffffff), "0c ff ff ff ff"},
		{"0x100000000", Int(1 << 32), "0e 00 00 00 00 01 00 00 00"},
		{`"LNRO0005"`, String("LNRO0005"), "0d 4c 4e 52 4f 30 30 30 35 00"},
		{`""`, String(""), "0d 00"},
		{`EisaId ("PNP0501")`, EISAID("PNP0501"), "0c 41 d0 05 01"},
		{`EisaId ("PNP0A08")`, EISAID("PNP0A08"), "0c 41 d0 0a 08"},
		{`\`, Path(`\`), "5c 00"},
		{`\_SB`, Path(`\_SB`), "5c 5f 53 42 5f"},
		{`^^A`, Path(`^^A`), "5e 5e 41 5f 5f 5f"},
		{`\_SB.PCI0`, Path(`\_SB.PCI0`), "5c 2e 5f 53 42 5f 50 43 49 30"},
		{`A.B.C`, Path(`A.B.C`), "2f 03 41 5f 5f 5f 42 5f 5f 5f 43 5f 5f 5f"},
		{"Scope", Scope(`\_SB`), "10 06 5c 5f 53 42 5f"},
		{"Device", Device("COM1", Name("_UID", Int(1))), "5b 82 0b 43 4f 4d 31 08 5f 55 49 44 01"},
		{"Package", Package(Int(5), Int(0)), "12 05 02 0a 05 00"},
		{"Buffer", Buffer([]byte{7, 8}), "11 05 0a 02 07 08"},
		{"Method", Method("_STA", 0, Return(Int(0xf))), "14 09 5f 53 54 41 08 a4 0a 0f"},
		{"Method, 7 arguments", Method("M", 7), "14 06 4d 5f 5f 5f 0f"},
		{"If", If(Equal(Arg(0), Int(5)), Notify("PWRB", 0x80)), "a0 0c 93 68 0a 05 86 50 57 52 42 0a 80"},
		{"Else", Else(Store(Arg(6), Local(7))), "a1 04 70 6e 67"},
		{"ResourceTemplate", ResourceTemplate(), "11 05 0a 02 79 00"},
	} {
		if want := unhex(t, test.want); !bytes.Equal(test.got, want) {
			t.Errorf("%s: % x, want % x", test.asl, test.got, want)
		}
	}
}

func TestResources(t *testing.T) {
	for _, test := range []struct {
		asl  string
		got  Resource
		want string
	}{
		{"IO", IO(0x3f8, 8), "47 01 f8 03 f8 03 01 08"},
		{"Memory32Fixed", Memory32Fixed(0xd0000000, 0x200), "86 09 00 01 00 00 00 d0 00 02 00 00"},
		{"edge, high", Interrupt(Edge|ActiveHigh, 4), "89 06 00 03 01 04 00 00 00"},
		{"level, low, shared, two", Interrupt(Level|ActiveLow|Shared, 10, 0x111), "89 0a 00 0d 02 0a 00 00 00 11 01 00 00"},
		{"buses", WordBusNumber(0, 255), "88 0d 00 02 0c 00 00 00 00 00 ff 00 00 00 00 01"},
		{"ports", WordIO(0x1000, 0xffff), "88 0d 00 01 0c 03 00 00 00 10 ff ff 00 00 00 f0"},
		{"memory", DWordMemory(0xc0000000, 0xcfffffff), "87 17 00 00 0c 01 00 00 00 00 00 00 00 c0 ff ff ff cf 00 00 00 00 00 00 00 10"},
		{"high memory", QWordMemory(1<<40, 1<<41-1), "8a 2b 00 00 0c 01 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00" +
			" ff ff ff ff ff 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00"},
	} {
		if want := unhex(t, test.want); !bytes.Equal(test.got, want) {
			t.Errorf("%s: % x, want % x", test.asl, test.got, want)
		}
	}
}

// TestPkgLength checks both sides of each boundary. The length counts itself.
func TestPkgLength(t *testing.T) {
	for _, test := range []struct {
		total int
		want  string
	}{
		{1, "01"},
		{63, "3f"},
		{65, "41 04"}, // 64 is impossible: 63 more bytes need a two-byte length
		{4095, "4f ff"},
		{4097, "81 00 01"}, // 4096 is impossible too
		{1<<20 - 1, "8f ff ff"},
		{1<<20 + 1, "c1 00 00 01"},
		{1<<28 - 1, "cf ff ff ff"},
	} {
		want := unhex(t, test.want)
		if got := pkgLength(test.total - len(want)); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: % x, want % x", test.total, got, want)
		}
	}
}

// TestLongPackage: above 255 elements the count is an integer of any size.
func TestLongPackage(t *testing.T) {
	elements := make([]Term, 256)
	for i := range elements {
		elements[i] = Int(1)
	}
	want := unhex(t, "13 45 10 0b 00 01") // VarPackage, 0x105 bytes, 256 elements
	if got := Package(elements...); !bytes.HasPrefix(got, want) {
		t.Errorf("% x..., want % x...", got[:len(want)], want)
	}
	if got := Package(elements[:255]...); got[0] != opPackage || got[3] != 255 {
		t.Errorf("% x...", got[:4])
	}
}

// TestBugs: a term without an encoding must not silently become other AML.
func TestBugs(t *testing.T) {
	for name, f := range map[string]func(){
		"small letters": func() { Path("com1") },
		"five letters":  func() { Path("SERIAL") },
		"digit first":   func() { Path("1COM") },
		"empty segment": func() { Path("A..B") },
		"long path":     func() { Path(strings.Repeat("A.", 255) + "A") },
		"short id":      func() { EISAID("PNP050") },
		"id of digits":  func() { EISAID("0000501") },
		"no hex":        func() { EISAID("PNP05G1") },
		"spaces":        func() { EISAID("PNP 501") },
		"not ASCII":     func() { String("é") },
		"NUL":           func() { String("a\x00b") },
		"argument 7":    func() { Arg(7) },
		"local 8":       func() { Local(8) },
		"8 arguments":   func() { Method("M", 8) },
		"2^28 bytes":    func() { pkgLength(1<<28 - 4) },
		"no interrupt":  func() { Interrupt(Edge) },
		"empty window":  func() { WordIO(2, 1) },
		"signature":     func() { Table("X", 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

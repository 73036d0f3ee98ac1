package mem_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"testing"

	"vmm/mem"
)

func TestSlice(t *testing.T) {
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 0x2000)}, mem.Region{Base: 0x10000, Bytes: make([]byte, 0x1000)})
	for _, test := range []struct {
		addr mem.Addr
		n    uint64
		ok   bool
	}{
		{0, 0x2000, true},
		{0, 0x2001, false},
		{0x1fff, 1, true},
		{0x1fff, 2, false},
		{0x2000, 0, false}, // not a RAM address, even for no bytes
		{0xffff, 2, false}, // begins in the hole
		{0x10000, 0x1000, true},
		{0x10001, 0x1000, false},
		{0x10fff, math.MaxUint64, false},
		{math.MaxUint64, 2, false},
		{1, math.MaxUint64, false},
	} {
		b, err := m.Slice(test.addr, test.n)
		if (err == nil) != test.ok || err == nil && uint64(len(b)) != test.n {
			t.Errorf("Slice(%#x, %#x): %d bytes, %v", test.addr, test.n, len(b), err)
		}
		if cap(b) > len(b) {
			t.Errorf("Slice(%#x, %#x): capacity %d reaches further", test.addr, test.n, cap(b))
		}
	}
	if m.Size() != 0x3000 {
		t.Errorf("Size() = %#x", m.Size())
	}
}

func TestMap(t *testing.T) {
	m, err := mem.Map(mem.Range{Base: 0, Size: 4 << 20}, mem.Range{Base: 4 << 30, Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image")
	page := bytes.Repeat([]byte("kernel!\n"), mem.PageSize/8)
	if err := os.WriteFile(path, append(make([]byte, mem.PageSize), page...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.MapFile(0x200000, f, mem.PageSize, mem.PageSize); err != nil {
		t.Fatal(err)
	}
	b, err := m.Slice(0x1ff000, 3*mem.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b[mem.PageSize:2*mem.PageSize], page) || b[0] != 0 || b[2*mem.PageSize] != 0 {
		t.Error("the mapped page is not where it belongs")
	}
	copy(b[mem.PageSize:], "changed")
	if now, _ := os.ReadFile(path); !bytes.Equal(now[mem.PageSize:], page) {
		t.Error("a write of the guest reached the file")
	}
	for _, bad := range []struct {
		a   mem.Addr
		off int64
		n   uint64
	}{{1, 0, 4096}, {0, 1, 4096}, {0, 0, 1}, {0, 0, 0}, {0x3ff000, 0, 8192}, {5 << 30, 0, 4096}} {
		if m.MapFile(bad.a, f, bad.off, bad.n) == nil {
			t.Errorf("MapFile(%#x, %#x, %#x) succeeded", bad.a, bad.off, bad.n)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, err := m.Slice(0, 1); err == nil {
		t.Error("memory after Close")
	}
}

func TestMapBad(t *testing.T) {
	for _, size := range []uint64{0, 1, 4097, 1 << 62, math.MaxUint64 &^ 4095} {
		if m, err := mem.Map(mem.Range{Base: 0, Size: size}); err == nil {
			m.Close()
			t.Errorf("Map(%#x) succeeded", size)
		}
	}
}

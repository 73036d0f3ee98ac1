package mem_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"vmm/mem"
)

// resident returns how many pages of b are backed by host memory
// (Documentation/admin-guide/mm/pagemap.rst).
func resident(t *testing.T, b []byte) (n int) {
	t.Helper()
	address, err := strconv.ParseUint(fmt.Sprintf("%p", b), 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	entries := make([]uint64, len(b)/mem.PageSize)
	if err := binary.Read(io.NewSectionReader(f, int64(address/mem.PageSize*8), int64(8*len(entries))), binary.LittleEndian, entries); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		n += int(e >> 63)
	}
	return n
}

// TestDiscard: whole pages become zeros and free host memory, and nothing else
// changes.
func TestDiscard(t *testing.T) {
	const size = 16 * mem.PageSize
	mapped, err := mem.Map(mem.Range{Base: 0, Size: size}, mem.Range{Base: 1 << 32, Size: size})
	if err != nil {
		t.Fatal(err)
	}
	defer mapped.Close()
	heap := mem.New(mem.Region{Base: 0, Bytes: make([]byte, size)}, mem.Region{Base: 1 << 32, Bytes: make([]byte, size)})
	for _, test := range []struct {
		addr       mem.Addr
		n          uint64
		first, end int // pages that are discarded
	}{
		{0, size, 0, 16},
		{mem.PageSize, mem.PageSize, 1, 2},
		{1, size - 1, 1, 16},
		{1, size - 2, 1, 15},
		{0, mem.PageSize - 1, 0, 0},
		{1, 2 * mem.PageSize, 1, 2},
		{mem.PageSize - 1, 2, 0, 0},
		{mem.PageSize, 0, 0, 0},
		{1 << 32, 3 * mem.PageSize, 16, 19},
		{1<<32 + 15*mem.PageSize, mem.PageSize, 31, 32},
	} {
		for _, m := range []*mem.Memory{mapped, heap} {
			var all [2][]byte
			for i, r := range m.Regions() {
				all[i] = r.Bytes
				copy(r.Bytes, bytes.Repeat([]byte{0xee}, size))
			}
			b, err := m.Slice(test.addr, test.n)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Discard(b); err != nil {
				t.Errorf("Discard(%#x+%#x): %v", test.addr, test.n, err)
			}
			if m == mapped {
				want := 32 - (test.end - test.first)
				if got := resident(t, all[0]) + resident(t, all[1]); got != want {
					t.Errorf("Discard(%#x+%#x): %d pages of 32 are in memory, want %d", test.addr, test.n, got, want)
				}
			}
			for page := range 32 {
				want := byte(0xee)
				if page >= test.first && page < test.end {
					want = 0
				}
				p := all[page/16][page%16*mem.PageSize:][:mem.PageSize]
				if !bytes.Equal(p, bytes.Repeat([]byte{want}, mem.PageSize)) {
					t.Errorf("Discard(%#x+%#x): page %d begins with %#x, want %#x", test.addr, test.n, page, p[0], want)
				}
			}
		}
	}
}

// TestDiscardFile: a mapped file's page keeps what the guest wrote. If discarded, it
// would show the file's bytes again, not zeros.
func TestDiscardFile(t *testing.T) {
	const pages = 12
	m, err := mem.Map(mem.Range{Base: 0, Size: pages * mem.PageSize})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, bytes.Repeat([]byte("f"), 4*mem.PageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []mem.Addr{8, 2} { // out of order
		if err := m.MapFile(at*mem.PageSize, f, 0, 2*mem.PageSize); err != nil {
			t.Fatal(err)
		}
	}
	all, _ := m.Slice(0, pages*mem.PageSize)
	for _, part := range [][2]int{{0, pages}, {3, 5}, {2, 4}, {3, 9}, {9, 12}} {
		copy(all, bytes.Repeat([]byte{0xee}, len(all)))
		if err := m.Discard(all[part[0]*mem.PageSize : part[1]*mem.PageSize]); err != nil {
			t.Fatal(err)
		}
		for page := range pages {
			ofFile := page == 2 || page == 3 || page == 8 || page == 9
			want := byte(0xee)
			if page >= part[0] && page < part[1] && !ofFile {
				want = 0
			}
			if got := all[page*mem.PageSize]; got != want {
				t.Errorf("pages %d to %d discarded: page %d begins with %#x, want %#x", part[0], part[1], page, got, want)
			}
		}
	}
}

// TestDiscardForeign: process memory that is not guest memory must not be discarded.
func TestDiscardForeign(t *testing.T) {
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, 2*mem.PageSize)})
	defer func() {
		if recover() == nil {
			t.Error("a slice of the heap was discarded")
		}
	}()
	m.Discard(make([]byte, 4*mem.PageSize))
}

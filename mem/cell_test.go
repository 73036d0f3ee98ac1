package mem_test

import (
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"vmm/mem"
)

func TestWords(t *testing.T) {
	ram := make([]byte, mem.PageSize)
	m := mem.New(mem.Region{Base: 0x1000, Bytes: ram})
	for _, test := range []struct {
		addr mem.Addr
		n    uint64
		ok   bool
	}{
		{0x1000, 1024, true},
		{0x1000, 1025, false},
		{0x1ffc, 1, true},
		{0x1ffe, 1, false},
		{0x1001, 1, false},
		{0xffc, 1, false},
		{0x2000, 1, false},
		{0x1000, 1 << 62, false}, // four times this is 0
		{0x1000, math.MaxUint64, false},
	} {
		w, err := m.Words(test.addr, test.n)
		if (err == nil) != test.ok || err == nil && uint64(len(w)) != test.n {
			t.Errorf("Words(%#x, %#x): %d words, %v", test.addr, test.n, len(w), err)
		}
	}
	w, err := m.Words(0x1010, 2)
	if err != nil {
		t.Fatal(err)
	}
	atomic.StoreUint32(&w[1], 0x04030201)
	if got := binary.LittleEndian.Uint32(ram[0x14:]); got != 0x04030201 {
		t.Errorf("the word is %#x in RAM", got)
	}
}

func TestU16(t *testing.T) {
	ram := make([]byte, mem.PageSize)
	m := mem.New(mem.Region{Base: 0x1000, Bytes: ram})
	for i := range ram {
		ram[i] = 0xee
	}
	for _, a := range []mem.Addr{0x1000, 0x1002, 0x1ffc, 0x1ffe} {
		c, err := m.U16(a)
		if err != nil {
			t.Fatal(err)
		}
		c.Store(0x1234)
		off := a - 0x1000
		if got := binary.LittleEndian.Uint16(ram[off:]); got != 0x1234 || c.Load() != 0x1234 {
			t.Errorf("%#x: %#x in RAM, %#x loaded", a, got, c.Load())
		}
		if neighbour := binary.LittleEndian.Uint16(ram[off^2:]); off%4 == 0 && neighbour != 0xeeee {
			t.Errorf("%#x: the neighbour became %#x", a, neighbour)
		}
	}
	for _, a := range []mem.Addr{0x1001, 0xffe, 0x2000, math.MaxUint64} {
		if _, err := m.U16(a); err == nil {
			t.Errorf("U16(%#x) succeeded", a)
		}
	}
}

// TestU16Neighbours: concurrent stores to the two halves of a word lose nothing.
func TestU16Neighbours(t *testing.T) {
	m := mem.New(mem.Region{Base: 0, Bytes: make([]byte, mem.PageSize)})
	var wg sync.WaitGroup
	for _, a := range []mem.Addr{0x10, 0x12} {
		c, err := m.U16(a)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for v := range uint16(20000) {
				if c.Store(v); c.Load() != v {
					t.Errorf("%#x: stored %d, loaded %d", a, v, c.Load())
					return
				}
			}
		})
	}
	wg.Wait()
}

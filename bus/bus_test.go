package bus_test

import (
	"math"
	"testing"

	"vmm/bus"
)

// echo remembers the last offset and answers 0 in the first byte.
type echo struct{ off uint64 }

func (e *echo) Read(off uint64, p []byte)  { e.off = off; p[0] = 0 }
func (e *echo) Write(off uint64, p []byte) { e.off = off }

func newBus(t testing.TB, d bus.Device) *bus.Bus {
	b := new(bus.Bus)
	for _, base := range []uint64{0x1000, 0x3000, 0x2000, math.MaxUint64 - 0xfff} {
		if err := b.Map(base, 0x1000, d); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestOverlap(t *testing.T) {
	b := newBus(t, new(echo))
	for _, bad := range [][2]uint64{
		{0xfff, 2}, {0x1000, 1}, {0x3fff, 1}, {0x500, 0x5000}, {0x5000, 0},
		{0x5000, math.MaxUint64}, {math.MaxUint64, 1}, {math.MaxUint64, 2},
	} {
		if b.Map(bad[0], bad[1], new(echo)) == nil {
			t.Errorf("Map(%#x, %#x) succeeded", bad[0], bad[1])
		}
	}
}

func TestAccess(t *testing.T) {
	d := new(echo)
	b := newBus(t, d)
	for _, test := range []struct {
		addr uint64
		n    int
		off  uint64
		want byte
	}{
		{0x1000, 1, 0, 0},
		{0x2fff, 1, 0xfff, 0},
		{0x2fff, 2, 99, 0xff}, // straddles two devices
		{0xfff, 1, 99, 0xff},
		{0x4000, 1, 99, 0xff},
		{0x3ffc, 4, 0xffc, 0},
		{math.MaxUint64, 1, 0xfff, 0},
		{math.MaxUint64, 2, 99, 0xff},
		{0, 8, 99, 0xff},
	} {
		d.off = 99
		p := make([]byte, test.n)
		b.Read(test.addr, p)
		if d.off != test.off || p[0] != test.want {
			t.Errorf("Read(%#x, %d): offset %#x, byte %#x; want %#x, %#x", test.addr, test.n, d.off, p[0], test.off, test.want)
		}
		d.off = 99
		b.Write(test.addr, p)
		if d.off != test.off {
			t.Errorf("Write(%#x, %d): offset %#x; want %#x", test.addr, test.n, d.off, test.off)
		}
	}
}

func TestUnmap(t *testing.T) {
	d := new(echo)
	b := newBus(t, d)
	if err := b.Unmap(0x2000); err != nil {
		t.Fatal(err)
	}
	if b.Unmap(0x2000) == nil {
		t.Error("a second Unmap succeeded")
	}
	d.off = 99
	if b.Write(0x2000, []byte{1}); d.off != 99 {
		t.Error("the device is still there")
	}
	if err := b.Map(0x2000, 8, d); err != nil {
		t.Error(err)
	}
}

func TestNoAllocation(t *testing.T) {
	b := newBus(t, new(echo))
	p := make([]byte, 4)
	if n := testing.AllocsPerRun(100, func() { b.Read(0x2000, p); b.Write(0x9000, p) }); n != 0 {
		t.Errorf("%v allocations an access", n)
	}
}

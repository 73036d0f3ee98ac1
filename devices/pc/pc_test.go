package pc_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vmm/bus"
	"vmm/devices/pc"
)

var (
	_ bus.Device = (*pc.CMOS)(nil)
	_ bus.Device = (*pc.I8042)(nil)
	_ bus.Device = (*pc.PM)(nil)
	_ bus.Device = (*pc.DebugExit)(nil)
	_ bus.Device = (*pc.Pvpanic)(nil)
)

func in(d bus.Device, off uint64) byte {
	p := []byte{0xff}
	d.Read(off, p)
	return p[0]
}

func out(d bus.Device, off uint64, p ...byte) { d.Write(off, p) }

func TestPM(t *testing.T) {
	var got []string
	m := &pc.PM{PowerOff: func() { got = append(got, "off") }, Reset: func() { got = append(got, "reset") }}
	for _, test := range []struct {
		off  uint64
		p    []byte
		want []string
	}{
		{pc.PMSleepControl, []byte{pc.PMSleepS5<<2 | 0x20}, []string{"off"}},
		{pc.PMSleepControl, []byte{pc.PMSleepS5<<2 | 0xe3}, []string{"off"}}, // reserved bits
		{pc.PMSleepControl, []byte{pc.PMSleepS5 << 2}, nil},                  // no SLP_EN
		{pc.PMSleepControl, []byte{3<<2 | 0x20}, nil},                        // S3
		{pc.PMSleepStatus, []byte{0x80}, nil},
		{pc.PMSleepStatus, []byte{0x34}, nil},
		{pc.PMReset, []byte{pc.PMResetValue}, []string{"reset"}},
		{pc.PMReset, []byte{0}, nil},
		{pc.PMSleepControl, []byte{0, 0, pc.PMResetValue, 0}, []string{"reset"}},
	} {
		got = nil
		if m.Write(test.off, test.p); !slices.Equal(got, test.want) {
			t.Errorf("%x at %d: %v, want %v", test.p, test.off, got, test.want)
		}
	}
	if v := in(m, pc.PMSleepStatus); v != 0 {
		t.Errorf("sleep status %#x", v)
	}
}

func TestDebugExit(t *testing.T) {
	var got []uint32
	d := &pc.DebugExit{Exit: func(code uint32) { got = append(got, code) }}
	out(d, 0, 7)
	out(d, 0, 1, 2)
	out(d, 0, 1, 2, 3, 4)
	out(d, 1, 9)
	out(d, 0, 1, 2, 3)
	if want := []uint32{7, 0x201, 0x04030201}; !slices.Equal(got, want) {
		t.Errorf("%#x, want %#x", got, want)
	}
}

func TestPvpanic(t *testing.T) {
	var got []pc.PanicEvent
	d := &pc.Pvpanic{Event: func(e pc.PanicEvent) { got = append(got, e) }}
	if v := in(d, 0); v != 3 {
		t.Errorf("supports %#x", v)
	}
	for _, v := range []byte{0, 4, 1, 2, 0xff} {
		out(d, 0, v)
	}
	if want := []pc.PanicEvent{pc.Panicked, pc.CrashLoaded, 3}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestGarbage: a guest may write what it likes.
func TestGarbage(t *testing.T) {
	nop := func() {}
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, d := range []bus.Device{
		pc.NewCMOS(time.Now), pc.NewI8042(new(edges), nop), &pc.PM{PowerOff: nop, Reset: nop},
		&pc.DebugExit{Exit: func(uint32) {}}, &pc.Pvpanic{Event: func(pc.PanicEvent) {}},
	} {
		for range 20000 {
			p := make([]byte, 1+rnd.IntN(8))
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			if d.Write(rnd.Uint64N(8), p); rnd.IntN(2) == 0 {
				d.Read(rnd.Uint64N(8), p)
			}
		}
	}
}

// FuzzLoad loads any state; one that is accepted must work.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"Index":9,"Offset":-9223372036854775808,"RAM":"` + strings.Repeat("////", 42) + `//8="}`))
	f.Add([]byte(`{"Index":11,"Offset":9223372036854775807,"RAM":"` + strings.Repeat("AAAA", 42) + `AAA="}`))
	f.Add([]byte(`{"Config":116,"Status":255,"Data":85,"Next":209}`))
	f.Fuzz(func(t *testing.T, state []byte) {
		c, k := pc.NewCMOS(time.Now), pc.NewI8042(new(edges), func() {})
		if c.Load(state) == nil {
			for i := range byte(128) {
				put(c, i, get(c, i)+1)
			}
		}
		if k.Load(state) == nil {
			for i := range 256 {
				out(k, 4, byte(i))
				out(k, 0, in(k, 0))
			}
		}
	})
}

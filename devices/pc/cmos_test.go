package pc_test

import (
	"testing"
	"time"

	"vmm/devices/pc"
)

// host is the tests' clock.
type host struct{ time.Time }

func (h *host) now() time.Time { return h.Time }

func newCMOS() (*pc.CMOS, *host) {
	h := &host{time.Date(2031, time.December, 7, 23, 58, 59, 123, time.FixedZone("east", 3600))}
	return pc.NewCMOS(h.now), h
}

func get(c *pc.CMOS, i byte) byte    { out(c, 0, i); return in(c, 1) }
func put(c *pc.CMOS, i byte, v byte) { out(c, 0, i); out(c, 1, v) }

// date reads century, year, month, day, weekday, hours, minutes, seconds.
func date(c *pc.CMOS) (d [8]byte) {
	for i, reg := range []byte{pc.RTCCentury, 9, 8, 7, 6, 4, 2, 0} {
		d[i] = get(c, reg)
	}
	return d
}

func TestRTC(t *testing.T) {
	for _, test := range []struct {
		b    byte
		want [8]byte
	}{
		{0x02, [8]byte{0x20, 0x31, 0x12, 0x07, 1, 0x22, 0x58, 0x59}},
		{0x06, [8]byte{20, 31, 12, 7, 1, 22, 58, 59}},
		{0x00, [8]byte{0x20, 0x31, 0x12, 0x07, 1, 0x90, 0x58, 0x59}},
		{0x04, [8]byte{20, 31, 12, 7, 1, 0x8a, 58, 59}},
	} {
		c, h := newCMOS()
		put(c, 0x0b, test.b)
		if d := date(c); d != test.want {
			t.Errorf("B %#x: %x, want %x", test.b, d, test.want)
		}
		h.Time = h.Add(time.Second)
		if v := get(c, 2); v != 0x59 && v != 59 {
			t.Errorf("B %#x: the next minute is %#x", test.b, v)
		}
		// Setting the shown time again gives the same time.
		shown := date(c)
		put(c, 0x0b, test.b|0x80)
		h.Time = h.Add(100 * time.Hour)
		if d := date(c); d != shown {
			t.Errorf("B %#x: %x while being set, not %x", test.b, d, shown)
		}
		put(c, 0x0b, test.b)
		if d := date(c); d != shown {
			t.Errorf("B %#x: %x after being set to %x", test.b, d, shown)
		}
	}
}

func TestRTCTwelveHours(t *testing.T) {
	c, h := newCMOS()
	put(c, 0x0b, 0)
	for hour, want := range map[int]byte{0: 0x12, 1: 0x01, 11: 0x11, 12: 0x92, 13: 0x81, 23: 0x91} {
		h.Time = time.Date(2030, 1, 1, hour, 0, 0, 0, time.UTC)
		v := get(c, 4)
		if v != want {
			t.Errorf("hour %d shows as %#x, want %#x", hour, v, want)
		}
		if put(c, 4, v); get(c, 4) != v {
			t.Errorf("hour %#x set, %#x shown", v, get(c, 4))
		}
	}
}

// TestRTCSet sets the time as Linux's mc146818_set_time does.
func TestRTCSet(t *testing.T) {
	c, h := newCMOS()
	put(c, 0x0b, 0x82)
	for i, reg := range []byte{pc.RTCCentury, 9, 8, 7, 4, 2, 0} {
		put(c, reg, []byte{0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59}[i])
	}
	put(c, 0x0b, 0x02)
	if d, want := date(c), [8]byte{0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59}; d != want {
		t.Errorf("%x, want %x", d, want)
	}
	h.Time = h.Add(time.Second)
	want := [8]byte{0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0}
	if d := date(c); d != want {
		t.Errorf("a second later %x, want %x", d, want)
	}
	state, err := c.Save()
	if err != nil {
		t.Fatal(err)
	}
	c = pc.NewCMOS(h.now)
	if err := c.Load(state); err != nil {
		t.Fatal(err)
	}
	if d := date(c); d != want {
		t.Errorf("restored %x, want %x", d, want)
	}
	for _, bad := range []string{"", "{}", `{"RAM":"AAAA"}`} {
		if c.Load([]byte(bad)) == nil {
			t.Errorf("state %q loads", bad)
		}
	}
}

func TestRTCUpdate(t *testing.T) {
	c, h := newCMOS()
	for _, test := range []struct {
		b    byte
		nsec int
		want byte
	}{
		{b: 2, nsec: 0, want: 0x26},
		{b: 2, nsec: 999_755_999, want: 0x26},
		{b: 2, nsec: 999_756_000, want: 0xa6},
		{b: 2, nsec: 999_999_999, want: 0xa6},
		{b: 0x82, nsec: 999_999_999, want: 0x26}, // no update while being set
	} {
		h.Time = time.Date(2030, 1, 1, 0, 0, 0, test.nsec, time.UTC)
		put(c, 0x0b, test.b)
		if v := get(c, 0x0a); v != test.want {
			t.Errorf("B %#x, %d ns: A is %#x, want %#x", test.b, test.nsec, v, test.want)
		}
	}
	if put(c, 0x0a, 0xff); get(c, 0x0a) != 0x7f {
		t.Errorf("UIP can be written: %#x", get(c, 0x0a))
	}
}

func TestRAM(t *testing.T) {
	c, _ := newCMOS()
	put(c, 0x80|0x40, 0xa5) // bit 7 is not part of the index
	if v := get(c, 0x40); v != 0xa5 {
		t.Errorf("RAM reads %#x", v)
	}
	if out(c, 0, 0x41, 0x5a); in(c, 1) != 0x5a {
		t.Error("a 16-bit write does not write index and data")
	}
	put(c, 5, 0x30) // an alarm is stored
	if v := get(c, 5); v != 0x30 {
		t.Errorf("alarm %#x", v)
	}
	for reg, want := range map[byte]byte{0x0c: 0, 0x0d: 0x80} {
		if put(c, reg, 0x7f); get(c, reg) != want {
			t.Errorf("register %#x reads %#x, want %#x", reg, get(c, reg), want)
		}
	}
	if v := in(c, 0); v != 0xff {
		t.Errorf("the index reads %#x", v)
	}
}

func TestCMOSNoAllocation(t *testing.T) {
	c, _ := newCMOS()
	p := []byte{0}
	if n := testing.AllocsPerRun(100, func() { c.Write(0, p); c.Read(1, p) }); n != 0 {
		t.Errorf("%v allocations an access", n)
	}
}

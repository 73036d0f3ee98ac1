package pc_test

import (
	"testing"

	"vmm/devices/pc"
)

// edges counts the interrupts of a line.
type edges int

func (e *edges) Set(high bool) {
	if high {
		*e++
	}
}

// TestI8042Wake: only a guest that wants key interrupts is interrupted. No answer that
// it waits for is lost by that.
func TestI8042Wake(t *testing.T) {
	for _, test := range []struct {
		name       string
		writes     [][2]byte // offset, value
		interrupts edges
		data       int // what can be read then, -1: nothing
	}{
		{"nobody listens", nil, 0, -1},
		{"as Linux has it", [][2]byte{{4, 0x60}, {0, 0x65}}, 1, 0},
		{"without the interrupt", [][2]byte{{4, 0x60}, {0, 0x64}}, 0, -1},
		{"the keyboard is off", [][2]byte{{4, 0x60}, {0, 0x75}}, 0, -1},
		{"turned off by a command", [][2]byte{{4, 0x60}, {0, 0x65}, {4, 0xad}}, 0, -1},
		{"an answer is there", [][2]byte{{4, 0x60}, {0, 0x65}, {4, 0xaa}}, 2, 0x55},
		{"an answer from when nobody listened", [][2]byte{{4, 0xaa}, {4, 0x60}, {0, 0x65}}, 1, 0x55},
	} {
		irq := new(edges)
		c := pc.NewI8042(irq, nil)
		for _, w := range test.writes {
			out(c, uint64(w[0]), w[1])
		}
		c.Wake()
		data := -1
		if in(c, 4)&1 != 0 {
			data = int(in(c, 0))
		}
		if *irq != test.interrupts || data != test.data || in(c, 4)&1 != 0 {
			t.Errorf("%s: %d interrupts, then %#x to read", test.name, *irq, data)
		}
	}
}

func TestI8042Reset(t *testing.T) {
	for _, test := range []struct {
		name   string
		writes [][2]byte // offset, value
		want   int
	}{
		{"pulse", [][2]byte{{4, 0xfe}}, 1},
		{"pulse of all lines", [][2]byte{{4, 0xf0}}, 1},
		{"pulse of none", [][2]byte{{4, 0xff}}, 0},
		{"output port", [][2]byte{{4, 0xd1}, {0, 0x02}}, 1},
		{"output port, A20", [][2]byte{{4, 0xd1}, {0, 0xdf}}, 0},
		{"data", [][2]byte{{0, 0xfe}}, 0},
	} {
		n := 0
		c := pc.NewI8042(new(edges), func() { n++ })
		for _, w := range test.writes {
			out(c, uint64(w[0]), w[1])
		}
		if n != test.want {
			t.Errorf("%s: %d resets", test.name, n)
		}
	}
}

// TestI8042ResetUnlocked: the machine may reset the device from the callback.
func TestI8042ResetUnlocked(t *testing.T) {
	var c *pc.I8042
	c = pc.NewI8042(new(edges), func() { c.Reset() })
	out(c, 4, 0xaa)
	out(c, 4, 0xfe)
	if s := in(c, 4); s&1 != 0 {
		t.Errorf("status %#x after a reset", s)
	}
}

// TestI8042Probe probes as Linux's i8042 driver does.
func TestI8042Probe(t *testing.T) {
	c := pc.NewI8042(new(edges), nil)
	ask := func(cmd byte, operand ...byte) (status, data byte) {
		t.Helper()
		out(c, 4, cmd)
		out(c, 0, operand...)
		if status = in(c, 4); status&2 != 0 {
			t.Fatalf("command %#x: input buffer full", cmd)
		}
		data = in(c, 0)
		if in(c, 4)&1 != 0 {
			t.Fatalf("command %#x: output buffer is still full", cmd)
		}
		return status, data
	}
	if s := in(c, 4); s&1 != 0 || s == 0xff {
		t.Fatalf("status %#x at reset", s)
	}
	for _, test := range []struct {
		cmd     byte
		operand []byte
		data    byte
	}{
		{0xaa, nil, 0x55},
		{0x20, nil, 0x74},
		{0xd3, []byte{0x5a}, 0x5a}, // and no auxiliary bit: the port does not exist
		{0xa9, nil, 0x01},
		{0xab, nil, 0x01},
		{0xd0, nil, 0x03},
		{0xd4, []byte{0xf2}, 0xfe},
	} {
		if s, v := ask(test.cmd, test.operand...); s&0x21 != 1 || v != test.data {
			t.Errorf("command %#x: status %#x, data %#x, want %#x", test.cmd, s, v, test.data)
		}
	}
	out(c, 4, 0x60)
	out(c, 0, 0x47)
	if _, v := ask(0x20); v != 0x47 {
		t.Errorf("configuration %#x", v)
	}
	out(c, 4, 0xa7)
	if _, v := ask(0x20); v != 0x67 {
		t.Errorf("configuration %#x with the auxiliary device off", v)
	}
	out(c, 0, 0xf2) // to the keyboard
	if s, v := in(c, 4), in(c, 0); s&0x41 != 0x41 || v != 0xfe {
		t.Errorf("a keyboard answers: status %#x, data %#x", s, v)
	}
}

func TestI8042SaveLoad(t *testing.T) {
	a, b := pc.NewI8042(new(edges), nil), pc.NewI8042(new(edges), nil)
	out(a, 4, 0xaa)
	state, err := a.Save()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Load(state); err != nil {
		t.Fatal(err)
	}
	if s, v := in(b, 4), in(b, 0); s&1 == 0 || v != 0x55 {
		t.Errorf("status %#x, data %#x", s, v)
	}
	if b.Load([]byte("{")) == nil {
		t.Error("a broken state loads")
	}
}

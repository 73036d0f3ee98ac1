package pci_test

import (
	"fmt"
	"testing"

	"vmm/devices/pci"
)

const (
	apic    = 0xfee0_0000
	enabled = 0x8000
	fmasked = 0xc000
)

// A msixGuest is a driver, and the device in slot 1.
type msixGuest struct {
	*host
	f                   *pci.Function
	control, table, pba uint64
}

// An action is one step of a msixGuest.
type action = func(g *msixGuest)

func ctl(c uint64) action    { return func(g *msixGuest) { g.setConfig(1, g.control, 2, c) } }
func signal(n uint16) action { return func(g *msixGuest) { g.f.MSIX().Signal(n) } }
func conf(reg, v uint64) action {
	return func(g *msixGuest) { g.setConfig(1, reg, 2, v) }
}
func mask(i, m uint64) action { return write(16*i+12, 4, m) }
func write(off uint64, n int, v uint64) action {
	return func(g *msixGuest) { out(g.memory, g.table+off, n, v) }
}
func entry(i, addr, data uint64) action {
	return both(write(16*i, 8, addr), write(16*i+8, 4, data))
}
func both(actions ...action) action {
	return func(g *msixGuest) {
		for _, do := range actions {
			do(g)
		}
	}
}

var msixSteps = []struct {
	name    string
	do      action
	signals string // so far, of each vector
	routes  string
	pending uint64
}{
	{"reset", func(*msixGuest) {}, "[0 0 0]", "[0 0 0]", 0},
	{"signal while off", signal(2), "[0 0 0]", "[0 0 0]", 4},
	{"on, function masked", ctl(fmasked), "[0 0 0]", "[0 0 0]", 4},
	{"message", entry(0, apic|0x1000, 0x31), "[0 0 0]", "[0 0 0]", 4},
	{"unmask", mask(0, 0), "[0 0 0]", "[0 0 0]", 4},
	{"signal, function masked", signal(0), "[0 0 0]", "[0 0 0]", 5},
	{"function unmasked", ctl(enabled), "[1 0 0]", "[1 0 0]", 4},
	{"signal", signal(0), "[2 0 0]", "[1 0 0]", 4},
	{"signal a masked one", signal(1), "[2 0 0]", "[1 0 0]", 6},
	{"twice", signal(1), "[2 0 0]", "[1 0 0]", 6},
	{"no such vector", signal(3), "[2 0 0]", "[1 0 0]", 6},
	{"VIRTIO_MSI_NO_VECTOR", signal(0xffff), "[2 0 0]", "[1 0 0]", 6},
	{"message of 1", entry(1, apic, 0x32), "[2 0 0]", "[1 0 0]", 6},
	{"unmask 1", mask(1, 0), "[2 1 0]", "[1 1 0]", 4},
	{"unmask 1 again", mask(1, 0), "[2 1 0]", "[1 1 0]", 4},
	{"reserved bits do not mask", mask(1, 0xffff_fffe), "[2 1 0]", "[1 1 0]", 4},
	{"signal 1", signal(1), "[2 2 0]", "[1 1 0]", 4},
	{"mask and unmask", both(mask(1, 1), mask(1, 0)), "[2 2 0]", "[1 1 0]", 4},
	{"function mask and back", both(ctl(fmasked), ctl(enabled)), "[2 2 0]", "[1 1 0]", 4},
	{"changed while unmasked", entry(1, apic, 0x42), "[2 2 0]", "[1 1 0]", 4},
	{"takes effect later", both(mask(1, 1), mask(1, 0)), "[2 2 0]", "[1 2 0]", 4},
	{"garbage address", entry(2, 0xdead_beef_0000, 1), "[2 2 0]", "[1 2 0]", 4},
	{"unmask garbage", mask(2, 0), "[2 2 0]", "[1 2 1]", 4},
	{"signal garbage", signal(2), "[2 2 0]", "[1 2 1]", 4},
	{"again", both(mask(2, 1), mask(2, 0)), "[2 2 0]", "[1 2 2]", 4},
	{"a good address", both(mask(2, 1), entry(2, apic, 0x33), mask(2, 0)), "[2 2 1]", "[1 2 3]", 0},
	{"one write for data and control", write(8, 8, 1<<32|0x99), "[2 2 1]", "[1 2 3]", 0},
	{"pending", signal(0), "[2 2 1]", "[1 2 3]", 1},
	{"pending bits are read-only", func(g *msixGuest) { out(g.memory, g.pba, 8, 0) }, "[2 2 1]", "[1 2 3]", 1},
	{"and with one to unmask", write(8, 8, 0x99), "[3 2 1]", "[2 2 3]", 0},
	{"off", ctl(0), "[3 2 1]", "[2 2 3]", 0},
	{"signal 0", signal(0), "[3 2 1]", "[2 2 3]", 1},
	{"on", ctl(enabled), "[4 2 1]", "[2 2 3]", 0},
	{"upper byte only", both(func(g *msixGuest) { g.setConfig(1, g.control+1, 1, 0xc0) }, signal(0)), "[4 2 1]", "[2 2 3]", 1},
	{"reserved bits of control", ctl(0xbfff), "[5 2 1]", "[2 2 3]", 0},
	{"reset", both(signal(0), func(g *msixGuest) { g.bus.Reset(); g.setConfig(1, command, 2, memoryOn|masterOn) }), "[6 2 1]", "[2 2 3]", 0},
	{"after it", both(signal(0), ctl(enabled)), "[6 2 1]", "[2 2 3]", 1},
	{"unmask 0", both(entry(0, apic|0x1000, 0x99), mask(0, 0)), "[7 2 1]", "[2 2 3]", 0},
	{"signal, bus mastering off", both(conf(command, memoryOn), signal(0)), "[7 2 1]", "[2 2 3]", 1},
	{"mask and unmask, bus mastering off", both(mask(0, 1), mask(0, 0)), "[7 2 1]", "[2 2 3]", 1},
	{"off and on, bus mastering off", both(ctl(0), ctl(enabled)), "[7 2 1]", "[2 2 3]", 1},
	{"function masked, bus mastering on", both(ctl(fmasked), conf(command, memoryOn|masterOn)), "[7 2 1]", "[2 2 3]", 1},
	{"and unmasked", ctl(enabled), "[8 2 1]", "[2 2 3]", 0},
	{"bus mastering off and on", both(conf(command, memoryOn), conf(command, memoryOn|masterOn)), "[8 2 1]", "[2 2 3]", 0},
	{"by the low byte", both(func(g *msixGuest) { g.setConfig(1, command, 1, memoryOn) }, signal(0)), "[8 2 1]", "[2 2 3]", 1},
	{"with MSI-X off, on again", both(ctl(0), conf(command, memoryOn|masterOn), ctl(enabled)), "[9 2 1]", "[2 2 3]", 0},
}

// TestMSIX takes a driver through masks and pending bits, one step after another.
func TestMSIX(t *testing.T) {
	h := newHost(t)
	v, p := vectors(3)
	g := &msixGuest{host: h, f: h.add(example('A'), p)}
	g.control, g.table, g.pba = h.msix(1)
	for _, s := range msixSteps {
		s.do(g)
		signals := fmt.Sprint([]int32{v[0].signals.Load(), v[1].signals.Load(), v[2].signals.Load()})
		routes := fmt.Sprint([]int32{v[0].routes.Load(), v[1].routes.Load(), v[2].routes.Load()})
		pending := in(h.memory, g.pba, 8)
		if signals != s.signals || routes != s.routes || pending != s.pending {
			t.Fatalf("%s: signals %s, routes %s, pending %b; want %s, %s, %b", s.name, signals, routes, pending, s.signals, s.routes, s.pending)
		}
		if on := h.config(1, g.control, 2)&enabled != 0; on != g.f.MSIX().Enabled() {
			t.Fatalf("%s: Enabled is %v", s.name, !on)
		}
	}
	if v[0].addr.Load() != apic|0x1000 || v[0].data.Load() != 0x99 {
		t.Errorf("message %#x, %#x", v[0].addr.Load(), v[0].data.Load())
	}
	t.Logf("%d steps", len(msixSteps))
}

// TestTable makes hostile accesses to the table and the pending bits.
func TestTable(t *testing.T) {
	h := newHost(t)
	_, p := vectors(2)
	h.add(example('A'), p)
	_, table, pba := h.msix(1)
	for i := range uint64(2) {
		out(h.memory, table+16*i, 8, 0x1122_3344_5566_7788)
		out(h.memory, table+16*i+8, 8, 0xffff_ffff_99aa_bbcc)
	}
	tests := []struct {
		off  uint64
		n    int
		want uint64
	}{
		{0, 4, 0x5566_7788}, {4, 4, 0x1122_3344}, {8, 4, 0x99aa_bbcc}, {12, 4, 1}, {0, 8, 0x1122_3344_5566_7788}, {8, 8, 0x1_99aa_bbcc}, {16, 8, 0x1122_3344_5566_7788}, {28, 4, 1},
		{0, 1, 0xff}, {0, 2, 0xffff}, {1, 4, 0xffff_ffff}, {2, 4, 0xffff_ffff}, {4, 8, ^uint64(0)}, {12, 8, ^uint64(0)}, {0, 3, 0xff_ffff}, {3, 5, 0xff_ffff_ffff}, {14, 2, 0xffff},
		{32, 4, 0xffff_ffff}, {32, 8, ^uint64(0)}, {pba - table - 8, 8, ^uint64(0)},
		{pba - table, 8, 0}, {pba - table, 4, 0}, {pba - table + 4, 4, 0}, {pba - table, 1, 0xff}, {pba - table + 8, 8, ^uint64(0)}, {0xff8, 8, ^uint64(0)}, {0xffc, 4, 0xffff_ffff},
	}
	for _, test := range tests {
		read := func() uint64 { return in(h.memory, table+test.off, test.n) }
		if got := read(); got != test.want {
			t.Errorf("%d bytes at %#x: %#x, want %#x", test.n, test.off, got, test.want)
		}
		if valid := test.n&3 == 0 && test.off%uint64(test.n) == 0; !valid || test.off >= 32 {
			before := [2]uint64{in(h.memory, table, 8), in(h.memory, table+16, 8)}
			out(h.memory, table+test.off, test.n, 0)
			if after := [2]uint64{in(h.memory, table, 8), in(h.memory, table+16, 8)}; after != before || read() != test.want {
				t.Errorf("a write of %d bytes at %#x: %#x", test.n, test.off, after)
			}
		}
	}
	out(h.memory, table, 4, 0xffff_ffff)
	if got := in(h.memory, table, 4); got != 0xffff_fffc {
		t.Errorf("address %#x", got)
	}
	t.Logf("%d accesses", len(tests))
}

// TestVectors: tables of all sizes. Each vector has its own bit and message.
func TestVectors(t *testing.T) {
	for _, n := range []int{1, 31, 32, 33, 64, 65, 128, 129, 2047, pci.MaxVectors} {
		h := newHost(t)
		v, p := vectors(n)
		f := h.add(&device{}, p)
		control, table, pba := h.msix(1)
		if got := h.config(1, control, 2); got != uint64(n-1) || f.MSIX().Vectors() != n {
			t.Errorf("%d vectors: control %#x", n, got)
		}
		_, size := f.BAR(0)
		if table+16*uint64(n) > pba || pba+uint64(n+63)/64*8 > table+size || size > 0x1_0000 {
			t.Errorf("%d vectors: table %#x, pending bits %#x, size %#x", n, table, pba, size)
		}
		for i := range n {
			out(h.memory, table+16*uint64(i), 8, apic)
			out(h.memory, table+16*uint64(i)+8, 8, uint64(i))
			if f.MSIX().Signal(uint16(i)); i%2 == 0 {
				out(h.memory, table+16*uint64(i)+12, 4, 1)
			}
		}
		for i := 0; i < n; i += 64 {
			want := ^uint64(0) >> max(0, 64-(n-i))
			if got := in(h.memory, pba+uint64(i)/8, 8); got != want {
				t.Errorf("%d vectors: %#x pending from %d", n, got, i)
			}
		}
		h.setConfig(1, control, 2, enabled)
		for i, v := range v {
			if want := int32(i & 1); v.signals.Load() != want || v.routes.Load() != want || v.data.Load() != uint32(i)*uint32(want) {
				t.Fatalf("vector %d of %d: %d signals, %d routes, data %d", i, n, v.signals.Load(), v.routes.Load(), v.data.Load())
			}
		}
	}
}

// TestNoVectors: MSIX of a function without vectors.
func TestNoVectors(t *testing.T) {
	h := newHost(t)
	f := h.add(example('A'), nil)
	f.MSIX().Signal(0)
	if f.MSIX().Enabled() || f.MSIX().Vectors() != 0 || h.findCap(1, 0x11) != 0 {
		t.Error("there is MSI-X")
	}
	for _, i := range []int{-1, 1, 3, 6, 255} { // 3 would be the table
		if d, size := f.BAR(i); d != nil || size != 0 {
			t.Errorf("BAR %d has %d bytes", i, size)
		}
	}
}

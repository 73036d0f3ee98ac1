package pci_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"vmm/devices/pci"
)

// TestSizing learns the size of a BAR as Linux and firmware do.
func TestSizing(t *testing.T) {
	h := newHost(t)
	_, v := vectors(200)
	h.add(example('A'), v)
	for _, decode := range []uint64{0, memoryOn} {
		h.setConfig(1, command, 2, decode)
		for _, test := range []struct {
			i    int
			want uint64
		}{{0, 0xffff_c00c}, {1, 0xffff_ffff}, {2, 0xffff_f000}, {3, 0xffff_e000}, {4, 0}, {5, 0}, {8, 0}} {
			old := h.config(1, barReg(test.i), 4)
			h.setConfig(1, barReg(test.i), 4, 0xffff_ffff)
			if got := h.config(1, barReg(test.i), 4); got != test.want {
				t.Errorf("BAR %d: %#x, want %#x", test.i, got, test.want)
			}
			h.setConfig(1, barReg(test.i), 4, old)
			if got := h.config(1, barReg(test.i), 4); got != old {
				t.Errorf("BAR %d: %#x, was %#x", test.i, got, old)
			}
		}
	}
	if h.who(highBase) != 'A' || h.who(lowBase) != 'B' {
		t.Error("BARs do not answer any more")
	}
}

// A move is a write to configuration space, and what answers where after it.
type move struct {
	what string // "slot register width value"
	want string // "address=name ..."
}

var moves = map[string][]move{
	"decoding": {
		{"1 4 2 0", "4000000000=- c0000000=-"}, {"1 4 2 2", "4000000000=A c0000000=B"}, {"1 4 1 6", "4000000000=A c0000000=B"},
		{"1 5 1 4", "4000000000=A"}, {"1 4 2 4", "4000000000=- c0000000=-"}, {"1 4 2 ffff", "4000000000=A 4000003fff=A 4000004000=- c0000fff=B c0001000=-"},
	},
	"moved while live": {
		{"1 4 2 2", "c0000000=B"}, {"1 18 4 c1000000", "c0000000=- c1000000=B"}, {"1 1a 2 c2ff", "c1000000=- c2ff0000=B"},
		{"1 18 4 c1000abc", "c1000000=B c2ff0000=-"}, {"1 10 4 5c00c", "4000000000=- 400005c000=A"}, {"1 14 4 41", "400005c000=-"}, {"1 14 4 40", "400005c000=A"},
	},
	"64 bits, half-written": {
		{"1 4 2 2", "4000000000=A"}, {"1 14 4 0", "4000000000=- 0=-"}, {"1 10 4 c4000000", "c4000000=A"}, {"1 14 4 ffffffff", "c4000000=-"},
		{"1 10 4 ffffffff", "ffffffffffffc000=- 4000000000=-"}, {"1 14 4 40", "40ffffc000=A 40ffffffff=A"}, {"1 10 8 4010000000", "4010000000=A 40ffffc000=-"},
		{"1 10 1 ff", "4010000000=A"}, {"1 17 1 1", "4010000000=-"}, {"1 17 1 0", "4010000000=A"},
	},
	"outside of the windows": {
		{"1 4 2 2", "c0000000=B"}, {"1 18 4 0", "0=- c0000000=-"}, {"1 18 4 bffff000", "bffff000=-"}, {"1 18 4 d0000000", "d0000000=-"}, {"1 18 4 fee00000", "fee00000=-"},
		{"1 18 4 fffff000", "fffff000=-"}, {"1 18 4 cffff000", "cffff000=B"}, {"1 10 8 4100000000", "4100000000=- 4000000000=-"}, {"1 10 8 40ffffc000", "40ffffc000=A"},
	},
	"over a fixed device": {
		{"1 4 2 2", "c8000000=F"}, {"1 18 4 c8000000", "c8000000=F c0000000=-"}, {"1 10 8 c8000000", "c8000000=F c8001000=- 4000000000=-"},
		{"1 10 8 c8004000", "c8004000=A"}, {"1 18 4 c8001000", "c8001000=B c8000000=F"},
	},
	"over another BAR of the same device": {
		{"1 4 2 2", "c0000000=B"}, {"1 10 8 c0000000", "c0000000=B c0002000=- 4000000000=-"}, {"1 18 4 c4000000", "c0000000=- c4000000=B"}, // the MSI-X table is still there
		{"1 1c 4 c5000000", "c0000000=A c0003000=A"}, {"1 18 4 c0003000", "c0003000=A c4000000=-"}, {"1 4 2 0", "c0003000=-"}, {"1 4 2 2", "c0003000=A"},
	},
	"over another device": {
		{"1 4 2 2", "c0000000=B"}, {"2 4 2 2", "c0002000=D"}, {"2 18 4 c0000000", "c0000000=B c0002000=-"}, {"1 18 4 c0002000", "c0000000=D c0002000=B"}, // the second waits, then gets it
		{"1 18 4 c0000000", "c0000000=D c0002000=-"}, {"2 4 2 0", "c0000000=B"}, {"2 4 2 2", "c0000000=B"}, {"1 4 2 0", "c0000000=D"},
	},
	"three for one place": {
		{"3 4 2 2", "c0004000=G"}, {"1 4 2 2", ""}, {"2 4 2 2", ""}, {"2 18 4 c0004000", "c0004000=G"}, {"1 18 4 c0004000", "c0004000=G"},
		{"3 18 4 c0009000", "c0004000=B c0009000=G"}, {"1 18 4 c0000000", "c0004000=D c0000000=B"}, // the lowest slot first
	},
	"absent": {
		{"9 4 2 2", "c0000000=-"}, {"9 18 4 c0000000", "c0000000=-"}, {"0 4 2 2", "c0000000=-"}, {"0 10 8 c0000000", "c0000000=-"},
	},
}

func TestMoves(t *testing.T) {
	n := 0
	for name, list := range moves {
		n += len(list)
		h := newHost(t)
		for i := range 3 {
			_, v := vectors(1)
			h.add(example('A'+byte(i)*2+byte(i/2)*1), v)
		}
		h.move(name, list, h.who)
	}
	t.Logf("%d moves", n)
}

func TestPortMoves(t *testing.T) {
	n := 0
	for name, list := range portMoves {
		n += len(list)
		h := newHost(t)
		for i := range 2 {
			_, v := vectors(1)
			h.add(ported('A'+byte(i)*2), v)
		}
		h.move(name, list, h.whoPort)
	}
	t.Logf("%d moves", n)
}

// move makes the moves of a list. who tells what answers at an address.
func (h *host) move(name string, list []move, who func(uint64) byte) {
	h.t.Helper()
	for _, m := range list {
		var slot, width int
		var reg, v uint64
		if _, err := fmt.Sscanf(m.what, "%d %x %d %x", &slot, &reg, &width, &v); err != nil {
			h.t.Fatal(m, err)
		}
		h.setConfig(slot, reg, width, v)
		for _, w := range strings.Fields(m.want) {
			var addr uint64
			var want byte
			fmt.Sscanf(w, "%x=%c", &addr, &want)
			if got := who(addr); got != want {
				h.t.Errorf("%s: after %q: %c at %#x, want %c", name, m.what, got, addr, want)
			}
		}
	}
}

// portMoves are for two devices that have 4 ports (1c) and 256 (20) each.
var portMoves = map[string][]move{
	"decoding": {
		{"1 4 2 0", "1000=- 1100=-"}, {"1 4 2 2", "1000=- 1100=-"}, {"1 4 2 1", "fff=- 1000=a 1003=a 1004=- 10ff=- 1100=b 11ff=b 1200=-"}, {"1 4 1 3", "1000=a"},
		{"1 5 1 4", "1000=a"}, {"1 4 2 fffe", "1000=- 1100=-"}, {"1 4 2 ffff", "1000=a 1100=b"},
	},
	"moved while live": {
		{"1 4 2 1", "1000=a"}, {"1 1c 4 3000", "1000=- 3000=a"}, {"1 1c 4 3007", "3000=- 3004=a 3007=a 3008=-"}, {"1 1c 1 8", "3004=- 3008=a"}, {"1 1d 1 40", "3008=- 4008=a"},
		{"1 1e 2 1", "4008=- 14008=-"}, {"1 1e 2 0", "4008=a"}, {"1 20 4 30ff", "1100=- 3000=b 30ff=b 3100=-"}, {"1 4 2 0", "3000=- 4008=-"},
	},
	"outside of the window": {
		{"1 4 2 1", "1000=a"}, {"1 1c 4 0", "0=- 1000=-"}, {"1 1c 4 cf8", "cf8=-"}, {"1 1c 4 ffc", "ffc=-"}, {"1 1c 4 fffc", "fffc=a ffff=a"},
		{"1 1c 4 10000", "0=- fffc=- 10000=-"}, {"1 1c 4 ffffffff", "fffc=- fffffffc=-"}, {"1 1c 4 c0000000", "c0000000=-"}, {"1 20 4 ffff", "ff00=b ffff=b"}, {"1 20 4 0", "ff00=-"},
	},
	"over fixed ports": {
		{"1 4 2 1", "2000=F"}, {"1 1c 4 2000", "1000=- 2000=F"}, {"1 1c 4 2004", "2004=F"}, {"1 20 4 2000", "1100=- 2000=F 2007=F 2008=-"}, {"1 1c 4 2008", "2007=F 2008=a"},
	},
	"over others": {
		{"1 4 2 1", "1000=a"}, {"2 4 2 1", "1004=c 1200=d"}, {"2 1c 4 1000", "1000=a 1004=-"}, // the second waits, then gets it
		{"1 1c 4 1104", "1000=c 1104=b"}, {"1 1c 4 1000", "1000=c 1104=b"}, {"2 4 2 0", "1000=a"}, {"2 4 2 3", "1000=a"}, {"1 4 2 0", "1000=c 1100=-"},
	},
}

// TestPortBARs: sizes, Command, and what the device is told.
func TestPortBARs(t *testing.T) {
	h := newHost(t)
	d := ported('A')
	_, v := vectors(1)
	h.add(d, v)
	h.add(example('C'), nil)
	for i, want := range map[int]uint64{3: 0xffff_fffd, 4: 0xffff_ff01} {
		was := h.config(1, barReg(i), 4)
		h.setConfig(1, barReg(i), 4, 0xffff_ffff)
		if got := h.config(1, barReg(i), 4); got != want {
			t.Errorf("BAR %d: %#x, want %#x", i, got, want)
		}
		h.setConfig(1, barReg(i), 4, 0)
		if got := h.config(1, barReg(i), 4); got != 1 {
			t.Errorf("BAR %d: %#x after 0", i, got)
		}
		h.setConfig(1, barReg(i), 4, was)
	}
	for slot, want := range map[int]uint64{1: 0x547, 2: 0x546} {
		h.setConfig(slot, command, 2, 0xffff)
		if got := h.config(slot, command, 2); got != want {
			t.Errorf("slot %d: command %#x, want %#x", slot, got, want)
		}
		h.setConfig(slot, command, 2, 0)
	}
	d.moves = nil
	h.setConfig(1, command, 2, portsOn)
	h.setConfig(1, 0x1c, 4, 0x3001)
	h.setConfig(1, 0x1c, 4, fixedPort)
	h.setConfig(1, command, 2, portsOn|memoryOn)
	h.setConfig(1, command, 2, memoryOn)
	want := []string{
		"3 0x1000 true", "4 0x1100 true", "3 0x1000 false", "3 0x3000 true", "3 0x3000 false",
		"0 0x4000000000 true", "2 0xc0000000 true", "4 0x1100 false",
	}
	if !slices.Equal(d.moves, want) {
		t.Errorf("moves\n%s, want\n%s", strings.Join(d.moves, "\n"), strings.Join(want, "\n"))
	}
}

// TestAssignPorts: ports are assigned only from port windows, one range after the other.
func TestAssignPorts(t *testing.T) {
	h := newHost(t)
	four := func() *device {
		return &device{bars: []pci.BAR{{Size: 4, Ports: true, Device: new(memory)}}}
	}
	for slot := 1; slot < 32; slot++ {
		h.add(four(), nil)
		if got, want := h.config(slot, 0x10, 4), uint64(portsBase+4*(slot-1)|1); got != want {
			t.Errorf("slot %d: %#x, want %#x", slot, got, want)
		}
	}
	for _, w := range [][]pci.Window{nil, windows[:2], {{Base: 0x1001, End: 0x1007, Ports: true}}} {
		if _, err := pci.NewBus(h.memory, h.io, bridgeIdent, w, nil).Add(four(), nil); err == nil {
			t.Errorf("there is room in %v", w)
		}
	}
	same := []pci.Window{{Base: 0x1000, End: 0x2000}, {Base: 0x1000, End: 0x2000, Ports: true}}
	b := pci.NewBus(h.memory, h.io, bridgeIdent, same, nil)
	d := four()
	d.bars = append(d.bars, pci.BAR{Size: 0x1000, Device: new(memory)})
	if _, err := b.Add(d, nil); err != nil {
		t.Error("ports and memory of one number:", err)
	}
	b = pci.NewBus(h.memory, h.io, bridgeIdent, windows[2:], nil)
	if _, err := b.Add(example('A'), nil); err == nil {
		t.Error("a BAR of memory is in a window of ports")
	}
}

func TestMoved(t *testing.T) {
	h := newHost(t)
	d := example('A')
	_, v := vectors(1)
	h.add(d, v)
	h.setConfig(1, command, 2, memoryOn)
	h.setConfig(1, 0x18, 4, 0xc100_0000)
	h.setConfig(1, 0x18, 4, 0xc100_0000)
	h.setConfig(1, 0x18, 4, fixedBase)
	h.setConfig(1, 0x18, 4, 0xc200_0000)
	h.setConfig(1, 0x1c, 4, 0xc300_0000) // the MSI-X BAR
	h.bus.Reset()
	want := []string{
		"0 0x4000000000 true", "2 0xc0000000 true",
		"2 0xc0000000 false", "2 0xc1000000 true",
		"2 0xc1000000 false", "2 0xc2000000 true",
		"0 0x4000000000 false", "2 0xc2000000 false",
	}
	if !slices.Equal(d.moves, want) {
		t.Errorf("moves\n%s, want\n%s", strings.Join(d.moves, "\n"), strings.Join(want, "\n"))
	}
}

func TestAssign(t *testing.T) {
	sizes := func(is64 bool, sizes ...uint64) *device {
		d := &device{}
		for _, s := range sizes {
			d.bars = append(d.bars, pci.BAR{Size: s, Device: new(memory), Is64: is64})
			if is64 {
				d.bars = append(d.bars, pci.BAR{})
			}
		}
		return d
	}
	low, high := pci.Window{Base: 0xc000_1000, End: 0xc010_0000}, pci.Window{Base: fourGiB, End: fourGiB + 0x10000}
	for _, test := range []struct {
		name    string
		windows []pci.Window
		add     []*device
		want    string // addresses, or "full"
	}{
		{"aligned, holes are filled", []pci.Window{low}, []*device{sizes(false, 0x1000, 0x8000), sizes(false, 0x1000, 0x10)}, "c0001000 c0008000 c0002000 c0003000"},
		{"64 bits go high", []pci.Window{low, high}, []*device{sizes(true, 0x1000), sizes(false, 0x1000)}, "100000000 c0001000"},
		{"or low", []pci.Window{low}, []*device{sizes(true, 0x1000)}, "c0001000"},
		{"or low when that is full", []pci.Window{high, low}, []*device{sizes(true, 0x10000, 0x1000)}, "100000000 c0001000"},
		{"full", []pci.Window{low}, []*device{sizes(false, 0x80000), sizes(false, 0x40000, 0x40000), sizes(false, 0x40000)}, "c0080000 full c0040000"},
		{"32 bits do not go high", []pci.Window{high}, []*device{sizes(false, 0x1000)}, "full"},
		{"no window", nil, []*device{sizes(true, 0x1000)}, "full"},
		{"empty", []pci.Window{{Base: 0xc000_0000, End: 0xc000_0000}, {Base: 5, End: 1}}, []*device{sizes(true, 0x1000)}, "full"},
		{"never 0", []pci.Window{{Base: 0, End: 0x4000}}, []*device{sizes(false, 0x1000)}, "1000"},
		{"the top", []pci.Window{{Base: 1<<64 - 0x1001, End: 1<<64 - 1}}, []*device{sizes(true, 0x1000)}, "full"},
		{"the top, wrapping", []pci.Window{{Base: 1<<64 - 0x800, End: 1<<64 - 1}}, []*device{sizes(true, 0x1000)}, "full"},
		{"larger than all", []pci.Window{low, high}, []*device{sizes(true, 1<<63)}, "full"},
	} {
		h := newHost(t)
		b := pci.NewBus(h.memory, h.io, bridgeIdent, test.windows, nil)
		var got []string
		slot := 0
		for _, d := range test.add {
			if _, err := b.Add(d, nil); err != nil {
				got = append(got, "full")
				continue
			}
			slot++
			for i, r := range d.bars {
				if r.Size == 0 {
					continue
				}
				n := 4
				if r.Is64 {
					n = 8
				}
				got = append(got, fmt.Sprintf("%x", in(b.ECAM(), uint64(slot)<<15|barReg(i), n)&^15))
			}
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%s: %s, want %s", test.name, s, test.want)
		}
	}
}

const fourGiB = 1 << 32

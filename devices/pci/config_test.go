package pci_test

import (
	"fmt"
	"testing"

	"vmm/bus"
	"vmm/devices/pci"
)

func TestHeader(t *testing.T) {
	h := newHost(t)
	_, v := vectors(3)
	h.add(example('A'), v)
	h.add(&device{ident: pci.Ident{Vendor: 1, Device: 2, Class: 0xff0000}}, nil)
	tests := []struct {
		slot int
		reg  uint64
		n    int
		want uint64
	}{
		{0, 0x00, 4, 0x00081b36}, {0, 0x08, 4, 0x06000000}, {0, 0x2c, 4, 0x11001af4}, {0, 0x3d, 1, 0}, {0, 0x34, 1, 0}, {0, status, 2, 0}, {0, 0x10, 8, 0},
		{1, 0x00, 4, 0x10411af4}, {1, 0x08, 4, 0x01000001}, {1, 0x2c, 4, 0x00411af4}, {1, command, 2, 0}, {1, status, 2, 0x10},
		{1, 0x0c, 4, 0}, {1, 0x0e, 1, 0}, {1, 0x30, 4, 0}, {1, 0x34, 4, 0x40}, {1, 0x3c, 4, 0x100},
		{1, 0x10, 8, highBase | 0xc}, {1, 0x18, 4, lowBase}, {1, 0x1c, 4, lowBase + 0x1000}, {1, 0x20, 8, 0},
		{1, 0x40, 8, 0x0110_5009}, {1, 0x48, 8, 0x1000_0000_0000_0000}, {1, 0x50, 8, 0xf0_0205_5809},
		{1, 0x58, 4, 0x0002_0011}, {1, 0x5c, 8, 0x803_0000_0003},
		{2, status, 2, 0}, {2, 0x34, 1, 0}, {2, 0x3d, 1, 1}, {2, 0x10, 8, 0}, {2, 0x18, 8, 0}, {2, 0x20, 8, 0},
		{2, 0xff, 1, 0}, {2, 0x100, 4, 0}, {2, 0xffc, 4, 0}, {2, 0xfe, 4, 0}, // no extended capabilities
		{2, 0xffe, 4, 0xffff_0000}, {3, 0, 8, ^uint64(0)}, {31, 0x100, 4, 0xffff_ffff}, // the next function is absent
	}
	for _, test := range tests {
		want := test.want & (^uint64(0) >> (64 - 8*test.n))
		if got := h.config(test.slot, test.reg, test.n); got != want {
			t.Errorf("slot %d, %d bytes at %#x: %#x, want %#x", test.slot, test.n, test.reg, got, want)
		}
	}
	t.Logf("%d reads", len(tests))
}

// TestMasks writes each bit of configuration space in both directions, and
// compares the bits that change with a table.
func TestMasks(t *testing.T) {
	h := newHost(t)
	_, v := vectors(3)
	h.add(example('A'), v)
	writable := map[uint64]byte{
		0x04: 0x46, 0x05: 0x05, 0x0c: 0xff, 0x0d: 0xff, 0x3c: 0xff,
		0x11: 0xc0, 0x12: 0xff, 0x13: 0xff, 0x14: 0xff, 0x15: 0xff, 0x16: 0xff, 0x17: 0xff, // 16 KiB
		0x19: 0xf0, 0x1a: 0xff, 0x1b: 0xff, // 4 KiB
		0x1d: 0xf0, 0x1e: 0xff, 0x1f: 0xff, // MSI-X
		0x54: 0x3c, 0x5b: 0xc0,
	}
	for reg := uint64(0); reg < 0x1000; reg++ {
		h.setConfig(1, reg, 1, 0)
		zero := h.config(1, reg, 1)
		h.setConfig(1, reg, 1, 0xff)
		one := h.config(1, reg, 1)
		if got := byte(zero ^ one); got != writable[reg] || zero&^one != 0 {
			t.Errorf("%#x: bits %#x can be written, want %#x", reg, got, writable[reg])
		}
		h.setConfig(1, command, 2, 0)
	}
	t.Logf("%d registers, %d of them not read-only", 0x1000, len(writable))
}

// TestErrorBits: writing 1 clears them. Nothing here sets them, but a loaded state may.
func TestErrorBits(t *testing.T) {
	h := newHost(t)
	h.add(example('A'), nil)
	s := h.state()
	s.Functions[1].Config[status+1] = 0xf9
	h.load(s)
	for _, test := range []struct {
		n       int
		v, want uint64
	}{{2, 0, 0xf910}, {2, 0x0010, 0xf910}, {2, 0x8010, 0x7910}, {1, 0xff, 0x7910}, {2, 0x0600, 0x7910}, {2, 0xffff, 0x0010}} {
		h.setConfig(1, status, test.n, test.v)
		if got := h.config(1, status, 2); got != test.want {
			t.Errorf("status after %#x: %#x, want %#x", test.v, got, test.want)
		}
	}
}

// counter counts bytes.
type counter struct{ reads, writes int }

func (c *counter) Read(_ uint64, p []byte)  { c.reads += len(p) }
func (c *counter) Write(_ uint64, p []byte) { c.writes += len(p) }

// TestBeside: an access narrower than CONFIG_ADDRESS goes to the device that shares its
// ports.
func TestBeside(t *testing.T) {
	h, beside := newHost(t), &counter{}
	d := h.bus.Ports(beside)
	for _, test := range []struct {
		off  uint64
		n    int
		want int // bytes that reach it
	}{{0, 1, 1}, {1, 1, 1}, {3, 1, 1}, {0, 2, 2}, {2, 2, 2}, {2, 4, 2}, {3, 2, 1}, {0, 4, 0}, {0, 8, 0}, {4, 1, 0}, {4, 4, 0}, {5, 1, 0}, {7, 4, 0}} {
		*beside = counter{}
		in(d, test.off, test.n)
		out(d, test.off, test.n, 0)
		if beside.reads != test.want || beside.writes != test.want {
			t.Errorf("%d bytes at %d: %d read and %d written there, want %d", test.n, test.off, beside.reads, beside.writes, test.want)
		}
	}
}

func TestPorts(t *testing.T) {
	h := newHost(t)
	h.add(example('A'), nil)
	const dev1 = 0x8000_0800
	tests := []struct {
		address uint64 // set first
		off     uint64 // then read
		n       int
		want    uint64
	}{
		{dev1, 0, 4, dev1}, {dev1 | 0x7f00_0003, 0, 4, dev1}, {0, 0, 4, 0}, {0xffff_ffff, 0, 4, 0x80ff_fffc},
		{dev1, 0, 1, 0xff}, {dev1, 0, 2, 0xffff}, {dev1, 2, 2, 0xffff}, {dev1, 3, 1, 0xff}, // not CONFIG_ADDRESS
		{dev1, 4, 4, 0x10411af4}, {dev1, 4, 1, 0xf4}, {dev1, 5, 1, 0x1a}, {dev1, 6, 1, 0x41}, {dev1, 7, 1, 0x10}, {dev1, 4, 2, 0x1af4}, {dev1, 6, 2, 0x1041}, {dev1, 5, 2, 0x411a},
		{dev1 | 8, 4, 4, 0x01000001}, {dev1 | 0xfc, 4, 4, 0},
		{dev1, 2, 4, 0x1af4_ffff}, {dev1, 3, 2, 0xf4ff}, {dev1, 1, 4, 0xf4ff_ffff}, {dev1, 0, 8, 0x10411af4_8000_0800}, // over the boundary
		{dev1, 6, 4, 0xffff_1041}, {dev1, 7, 8, 0xffff_ffff_ffff_ff10}, {dev1, 8, 4, 0xffff_ffff}, // beyond the ports
		{dev1 &^ (1 << 31), 4, 4, 0xffff_ffff},  // not enabled
		{dev1 | 0x1_0000, 4, 4, 0xffff_ffff},    // bus 1
		{dev1 | 0x100, 4, 4, 0xffff_ffff},       // function 1
		{0x8000_1000, 4, 4, 0xffff_ffff},        // no such device
		{0x8000_ff00, 4, 4, 0xffff_ffff},        // special cycle
		{0x8000_0000, 4, 4, 0x00081b36},         // bridge
		{dev1 | 0x0100_0000, 4, 4, 0x1041_1af4}, // AMD's extended registers: reserved here
	}
	for _, test := range tests {
		out(h.ports, 0, 4, test.address)
		if got := in(h.ports, test.off, test.n); got != test.want {
			t.Errorf("address %#x, %d bytes at %#x: %#x, want %#x", test.address, test.n, 0xcf8+test.off, got, test.want)
		}
	}
	writes := []struct {
		address, off uint64
		n            int
		v            uint64
		want         uint64 // CONFIG_ADDRESS, then 4 bytes from 0x0c
		reg          uint64
	}{
		{dev1, 0, 1, 0, dev1, 0}, {dev1, 0, 2, 0, dev1, 0}, {dev1, 1, 1, 6, dev1, 0}, {dev1, 2, 4, 0, dev1, 0}, {dev1, 0, 4, 0x8000_0000, 0x8000_0000, 0},
		{dev1 | 0xc, 4, 1, 0x12, dev1 | 0xc, 0x12}, {dev1 | 0xc, 5, 1, 0x34, dev1 | 0xc, 0x3412}, {dev1 | 0xc, 4, 4, 0xffff_5678, dev1 | 0xc, 0x5678},
		{dev1 | 0xc, 2, 4, 0xabcd_ffff, dev1 | 0xc, 0xabcd}, {dev1 | 0xc, 7, 2, 0xffff, dev1 | 0xc, 0xabcd},
		{0, 0, 8, 0x1111_8000_080c, dev1 | 0xc, 0x1111}, {0xc | 0x800, 4, 4, 0, 0x80c, 0x1111}, {dev1 | 0x1_000c, 4, 4, 0, dev1 | 0x1_000c, 0x1111},
	}
	for _, test := range writes {
		out(h.ports, 0, 4, test.address)
		out(h.ports, test.off, test.n, test.v)
		if got, reg := in(h.ports, 0, 4), h.config(1, 0xc, 4); got != test.want || reg != test.reg {
			t.Errorf("address %#x, %#x to %#x: address %#x, register %#x, want %#x, %#x", test.address, test.v, 0xcf8+test.off, got, reg, test.want, test.reg)
		}
	}
	t.Logf("%d reads, %d writes", len(tests), len(writes))
}

// pciCfg is virtio's window to BARs (virtio 1.2, §4.1.4.9), built from a capability. Its
// body is cap_len, cfg_type, bar, id, 2 bytes of padding, offset, length, and 4 bytes of
// data.
func pciCfg(bar func(i int) (bus.Device, uint64), log *[]string) pci.Capability {
	access := func(body []byte, do func(d bus.Device, off uint64, p []byte)) {
		d, size := bar(int(body[2]))
		off, n := uint64(le.Uint32(body[6:])), uint64(le.Uint32(body[10:]))
		if d != nil && (n == 1 || n == 2 || n == 4) && off%n == 0 && off+n <= size {
			do(d, off, body[14:14+n])
		}
	}
	body := make([]byte, 18)
	body[0], body[1] = 20, 5
	writable := []byte{0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}
	return pci.Capability{ID: pci.VendorSpecific, Body: body, Writable: writable, Live: 14,
		Refresh: func(body []byte) {
			access(body, func(d bus.Device, off uint64, p []byte) {
				*log = append(*log, fmt.Sprint("r", off, len(p)))
				d.Read(off, p)
			})
		},
		Commit: func(body []byte) {
			access(body, func(d bus.Device, off uint64, p []byte) {
				*log = append(*log, fmt.Sprint("w", off, p))
				d.Write(off, p)
			})
		},
	}
}

// TestPCICfg uses the window as a driver does.
func TestPCICfg(t *testing.T) {
	h := newHost(t)
	var f *pci.Function
	var log []string
	d := example('A')
	d.caps = []pci.Capability{pciCfg(func(i int) (bus.Device, uint64) { return f.BAR(i) }, &log)}
	_, v := vectors(1)
	f = h.add(d, v)
	at := h.findCap(1, pci.VendorSpecific)
	set := func(bar, off, n uint64) {
		h.setConfig(1, at+4, 1, bar)
		h.setConfig(1, at+8, 4, off)
		h.setConfig(1, at+12, 4, n)
	}
	for _, test := range []struct {
		bar, off, n uint64
		at          uint64
		width       int
		want        uint64
		log         string
	}{
		{0, 8, 4, 16, 4, 0x41414141, "[r8 4]"}, {2, 8, 4, 16, 4, 0x42424242, "[r8 4]"}, {2, 2, 2, 16, 2, 0x4242, "[r2 2]"},
		{0, 8, 1, 19, 1, 0x42, "[r8 1]"}, // the other bytes stay
		{0, 8, 4, 12, 4, 4, "[]"},        // not live
		{0, 8, 4, 20, 1, 0x11, "[]"},     // behind it: MSI-X
		{0, 8, 4, 12, 8, 0x41414141_0000_0004, "[r8 4]"}, {0, 8, 3, 16, 4, 0x41414141, "[]"}, {1, 8, 4, 16, 4, 0x41414141, "[]"}, {9, 0, 4, 16, 4, 0x41414141, "[]"},
		{0, 0x4000, 4, 16, 4, 0x41414141, "[]"}, {3, 12, 4, 16, 4, 1, "[r12 4]"}, // vector 0 is masked
	} {
		set(test.bar, test.off, test.n)
		log = nil
		got := h.config(1, at+test.at, test.width)
		if fmt.Sprint(log) != test.log || got != test.want {
			t.Errorf("%+v: %#x, %v", test, got, log)
		}
	}
	set(2, 4, 2)
	log = nil
	h.setConfig(1, at+16, 2, 0x1234)
	if got := fmt.Sprint(log); got != "[w4 [52 18]]" || d.bars[2].Device.(*memory).writes.Load() != 1 {
		t.Errorf("write: %v", got)
	}
}

func TestLayoutPanics(t *testing.T) {
	m := new(memory)
	n := 0
	for name, d := range map[string]*device{
		"size":        {bars: []pci.BAR{{Size: 0x1800, Device: m}}},
		"small":       {bars: []pci.BAR{{Size: 8, Device: m}}},
		"wide":        {bars: []pci.BAR{{Size: 1 << 32, Device: m}}},
		"few ports":   {bars: []pci.BAR{{Size: 2, Ports: true, Device: m}}},
		"many ports":  {bars: []pci.BAR{{Size: 512, Ports: true, Device: m}}},
		"wide ports":  {bars: []pci.BAR{{Size: 16, Ports: true, Is64: true, Device: m}}},
		"no device":   {bars: []pci.BAR{{Size: 16}}},
		"upper half":  {bars: []pci.BAR{{Size: 16, Device: m, Is64: true}, {Size: 16, Device: m}}},
		"last":        {bars: []pci.BAR{5: {Size: 16, Device: m, Is64: true}}},
		"seventh":     {bars: []pci.BAR{6: {Size: 16, Device: m}}},
		"body":        {caps: []pci.Capability{{ID: 9, Body: make([]byte, 250)}}},
		"mask":        {caps: []pci.Capability{{ID: 9, Body: make([]byte, 2), Writable: make([]byte, 1)}}},
		"live":        {caps: []pci.Capability{{ID: 9, Body: make([]byte, 2), Live: 3}}},
		"MSI-X's BAR": {bars: []pci.BAR{4: {Size: 16, Device: m, Is64: true}}},
		"vectors":     {},
	} {
		n++
		count := 1
		if name == "vectors" {
			count = pci.MaxVectors + 1
		}
		_, v := vectors(count)
		mustPanic(t, name, func() { newHost(t).bus.Add(d, v) })
	}
	t.Logf("%d layouts", n)
}

func TestFull(t *testing.T) {
	h := newHost(t)
	for i := 1; i < 32; i++ {
		if f := h.add(&device{}, nil); f.Slot() != i {
			t.Errorf("slot %d, want %d", f.Slot(), i)
		}
	}
	if _, err := h.bus.Add(&device{}, nil); err == nil {
		t.Error("a 33rd device")
	}
}

func TestNoAllocation(t *testing.T) {
	h := newHost(t)
	_, v := vectors(3)
	f := h.add(example('A'), v)
	control, table, pba := h.msix(1)
	h.setConfig(1, control, 2, 0x8000)
	p := make([]byte, 4)
	apic, mask, unmask := []byte{0, 0, 0xe0, 0xfe}, []byte{1, 0, 0, 0}, make([]byte, 4)
	n := testing.AllocsPerRun(100, func() {
		le.PutUint32(p, 0x8000_080c)
		h.ports.Write(0, p)
		h.ports.Write(4, p)
		h.ports.Read(4, p)
		h.ecam.Write(0x800c, p)
		h.ecam.Read(0x8004, p)
		h.ecam.Read(0x7_8004, p) // absent
		h.memory.Write(table, apic)
		h.memory.Write(table+12, unmask)
		f.MSIX().Signal(0)
		h.memory.Write(table+12, mask)
		f.MSIX().Signal(0)
		h.memory.Read(table, p)
		h.memory.Read(pba, p)
		f.INTx().Set(true)
		f.INTx().Set(false)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

package pci_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"vmm/bus"
	"vmm/devices/pci"
)

var le = binary.LittleEndian

// The addresses in these tests. The device at fixedBase was there first.
const (
	lowBase, lowEnd   = 0xc000_0000, 0xd000_0000
	highBase, highEnd = 0x40_0000_0000, 0x41_0000_0000
	fixedBase         = 0xc800_0000
	fixedSize         = 0x1000

	portsBase, portsEnd = 0x1000, 0x1_0000
	fixedPort           = 0x2000
	fixedPorts          = 8

	command, status = 0x04, 0x06
	portsOn         = 1
	memoryOn        = 2
	masterOn        = 4
)

var windows = []pci.Window{{Base: lowBase, End: lowEnd}, {Base: highBase, End: highEnd}, {Base: portsBase, End: portsEnd, Ports: true}}

var bridgeIdent = pci.Ident{Vendor: 0x1b36, Device: 0x0008, Class: 0x060000, Subvendor: 0x1af4, Subdevice: 0x1100}

// A memory is a BAR that reads as its name everywhere, and counts writes.
type memory struct {
	name   byte
	writes atomic.Int32
}

func (m *memory) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = m.name
	}
}
func (m *memory) Write(off uint64, p []byte) { m.writes.Add(1) }

// A device has what the test wants, and logs its moves.
type device struct {
	ident pci.Ident
	bars  []pci.BAR
	caps  []pci.Capability
	hook  func(bar int, addr uint64, on bool)

	mu      sync.Mutex
	moves   []string
	mastery []bool
	at      map[int]uint64 // BARs that answer
}

func (d *device) Ident() pci.Ident               { return d.ident }
func (d *device) BARs() []pci.BAR                { return d.bars }
func (d *device) Capabilities() []pci.Capability { return d.caps }
func (d *device) BusMaster(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mastery = append(d.mastery, on)
}
func (d *device) Moved(bar int, addr uint64, on bool) {
	d.mu.Lock()
	d.moves = append(d.moves, fmt.Sprintf("%d %#x %v", bar, addr, on))
	if d.at == nil {
		d.at = make(map[int]uint64)
	}
	if delete(d.at, bar); on {
		d.at[bar] = addr
	}
	d.mu.Unlock()
	if d.hook != nil {
		d.hook(bar, addr, on)
	}
}

// A vector counts its signals, and refuses addresses outside the local APICs.
type vector struct {
	signals, routes atomic.Int32
	addr            atomic.Uint64
	data            atomic.Uint32
}

var errRoute = errors.New("not an address of a local APIC")

func (v *vector) Signal() { v.signals.Add(1) }
func (v *vector) Route(addr uint64, data uint32) error {
	v.routes.Add(1)
	if addr>>20 != 0xfee {
		return errRoute
	}
	v.addr.Store(addr)
	v.data.Store(data)
	return nil
}

func vectors(n int) (v []*vector, p []pci.Vector) {
	for range n {
		v = append(v, new(vector))
		p = append(p, v[len(v)-1])
	}
	return v, p
}

// A level keeps its value, and counts changes and calls. Each call is an ioctl.
type level struct {
	mu      sync.Mutex
	high    bool
	changes int
	calls   int
}

func (l *level) Set(high bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if high != l.high {
		l.high, l.changes = high, l.changes+1
	}
}

func (l *level) is() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.high
}

// in reads from a device as a CPU does; out writes to it.
func in(d bus.Device, off uint64, n int) uint64 {
	b := [8]byte{}
	p := b[:n]
	for i := range p {
		p[i] = 0xff
	}
	d.Read(off, p)
	return le.Uint64(b[:])
}

func out(d bus.Device, off uint64, n int, v uint64) {
	var b [8]byte
	le.PutUint64(b[:], v)
	d.Write(off, b[:n])
}

// A host is a bus with its surroundings.
type host struct {
	t           testing.TB
	memory, io  *bus.Bus
	bus         *pci.Bus
	ports, ecam bus.Device
	lines       [4]level
}

func newHost(t testing.TB) *host {
	h := &host{t: t, memory: new(bus.Bus), io: new(bus.Bus)}
	f := &memory{name: 'F'}
	if err := errors.Join(h.memory.Map(fixedBase, fixedSize, f), h.io.Map(fixedPort, fixedPorts, f)); err != nil {
		t.Fatal(err)
	}
	var lines []bus.Line
	for i := range h.lines {
		lines = append(lines, &h.lines[i])
	}
	h.bus = pci.NewBus(h.memory, h.io, bridgeIdent, windows, lines)
	h.ports, h.ecam = h.bus.Ports(nil), h.bus.ECAM()
	return h
}

func (h *host) add(d *device, v []pci.Vector) *pci.Function {
	h.t.Helper()
	f, err := h.bus.Add(d, v)
	if err != nil {
		h.t.Fatal(err)
	}
	return f
}

// config reads a register of the device in a slot, by ECAM.
func (h *host) config(slot int, reg uint64, n int) uint64 {
	return in(h.ecam, uint64(slot)<<15|reg, n)
}
func (h *host) setConfig(slot int, reg uint64, n int, v uint64) {
	out(h.ecam, uint64(slot)<<15|reg, n, v)
}

// who returns the name of the device at an address, or '-'; whoPort, at a port.
func (h *host) who(addr uint64) byte     { return who(h.memory, addr) }
func (h *host) whoPort(addr uint64) byte { return who(h.io, addr) }

func who(b *bus.Bus, addr uint64) byte {
	p := []byte{0}
	if b.Read(addr, p); p[0] == 0xff {
		return '-'
	}
	return p[0]
}

func barReg(i int) uint64 { return 0x10 + 4*uint64(i) }

// example returns a device with a bit of everything: BAR 0 of 64 bits, BAR 2 of 32, and
// the MSI-X table in BAR 3 if it has vectors.
func example(name byte) *device {
	return &device{
		ident: pci.Ident{Vendor: 0x1af4, Device: 0x1040 + uint16(name&15), Class: 0x010000, Revision: 1, Subvendor: 0x1af4, Subdevice: uint16(name)},
		bars: []pci.BAR{
			0: {Size: 0x4000, Device: &memory{name: name}, Prefetchable: true, Is64: true},
			2: {Size: 0x1000, Device: &memory{name: name + 1}},
		},
		caps: []pci.Capability{
			{ID: pci.VendorSpecific, Body: []byte{16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16}},
			{ID: pci.VendorSpecific, Body: []byte{5, 2, 0xf0}, Writable: []byte{0, 0, 0x3c}},
		},
	}
}

// ported returns an example that also has ports, and the MSI-X table in BAR 5. Their
// names are a, b; c, d; and so on.
func ported(name byte) *device {
	d := example(name)
	const lower = 'a' - 'A'
	d.bars = append(d.bars,
		pci.BAR{Size: 4, Ports: true, Device: &memory{name: name + lower}},
		pci.BAR{Size: 0x100, Ports: true, Device: &memory{name: name + 1 + lower}})
	return d
}

// findCap returns the offset of a capability, which it searches for as a driver does.
func (h *host) findCap(slot int, id uint64) uint64 {
	h.t.Helper()
	at := h.config(slot, 0x34, 1)
	for n := 0; at != 0; n++ {
		if at < 0x40 || at&3 != 0 || n > 48 {
			h.t.Fatalf("slot %d: capability at %#x", slot, at)
		}
		if h.config(slot, at, 1) == id {
			return at
		}
		at = h.config(slot, at+1, 1)
	}
	return 0
}

// msix returns the offset of Message Control, and the address of the table
// after turning memory decoding on.
func (h *host) msix(slot int) (control, table, pba uint64) {
	h.t.Helper()
	at := h.findCap(slot, 0x11)
	if at == 0 {
		h.t.Fatalf("slot %d has no MSI-X", slot)
	}
	h.setConfig(slot, command, 2, memoryOn|masterOn)
	t, p := h.config(slot, at+4, 4), h.config(slot, at+8, 4)
	if t&7 != p&7 || t&^7 != 0 {
		h.t.Fatalf("table at %#x, pending bits at %#x", t, p)
	}
	base := h.config(slot, barReg(int(t&7)), 4) &^ 15
	return at + 2, base, base + p&^7
}

func mustPanic(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", name)
		}
	}()
	f()
}

// TestBusMaster: a device is told of each change of the bit, and of nothing else.
func TestBusMaster(t *testing.T) {
	h := newHost(t)
	d := example('A')
	h.add(d, nil)
	for _, v := range []uint64{0, memoryOn, masterOn, masterOn | memoryOn, 0xffff, memoryOn, 0, masterOn} {
		h.setConfig(1, command, 2, v)
	}
	saved := h.save()
	h.bus.Reset()
	h.bus.Reset()
	for range 2 {
		if err := h.bus.Load(saved); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(d.mastery); got != "[true false true false true]" {
		t.Errorf("told %s", got)
	}
}

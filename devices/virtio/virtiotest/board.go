package virtiotest

import (
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"vmm/bus"
	"vmm/devices/pci"
	"vmm/devices/virtio"
	"vmm/mem"
	"vmm/task"
)

var le = binary.LittleEndian

// Deadline is how long any operation may take.
const Deadline = 5 * time.Second

// Kind is a transport with its kind of interrupts.
type Kind int

// The three kinds. Over INTx the driver does without I/O space, as on a machine that
// has none: it leaves I/O decoding off, and notifies through memory.
const (
	MSIX Kind = iota // PCI
	INTx             // PCI
	MMIO
)

func (k Kind) String() string { return [...]string{"pci-msix", "pci-intx", "mmio"}[k] }

// The layout. The RAM is small, because all of it is compared after every hostile
// request.
const (
	lowBase  = mem.Addr(0x100000)
	lowSize  = 0x24000
	highBase = mem.Addr(1 << 32)
	highSize = 0x4000

	ringsSize  = 0x10000 // of the first device
	zoneSize   = 0x20000 // its rings and buffers
	otherRings = 0x2000  // of the second
	otherSize  = lowSize - zoneSize

	ecamBase = 0xb000_0000
	portBase = 0xcf8
	mmioBase = 0xd000_0000
	winBase  = 0xc000_0000
	winEnd   = 0xc100_0000
	winPorts = 0x1000
	endPorts = 0x1_0000
	win64    = 0x80_0000_0000
	win64End = 0x81_0000_0000
)

// A Board is what surrounds the devices in a machine.
type Board struct {
	tb     testing.TB
	RAM    *mem.Memory
	Memory bus.Bus
	Ports  bus.Bus
	PCI    *pci.Bus
	Lines  []*Line
	Slots  []*Slot
	pciDev int // number of PCI devices

	Owner  task.Owner      // of devices added later
	Broken <-chan struct{} // of devices added later
}

// NewBoard returns a board without devices. If ram is nil, it makes new RAM on the Go
// heap, where the race detector sees it.
func NewBoard(tb testing.TB, ram *mem.Memory) *Board {
	if ram == nil {
		ram = mem.New(mem.Region{Base: lowBase, Bytes: make([]byte, lowSize)}, mem.Region{Base: highBase, Bytes: make([]byte, highSize)})
		for _, r := range ram.Regions() {
			for i := range r.Bytes {
				r.Bytes[i] = byte(i*7 + i>>8)
			}
		}
	}
	b := &Board{tb: tb, RAM: ram}
	var lines []bus.Line
	for range 4 {
		l := newLine()
		b.Lines = append(b.Lines, l)
		lines = append(lines, l)
	}
	bridge := pci.Ident{Vendor: 0x8086, Device: 0x1237, Class: 0x060000}
	windows := []pci.Window{{Base: winBase, End: winEnd}, {Base: win64, End: win64End}, {Base: winPorts, End: endPorts, Ports: true}}
	b.PCI = pci.NewBus(&b.Memory, &b.Ports, bridge, windows, lines)
	b.must(b.Memory.Map(ecamBase, pci.ECAMSize, b.PCI.ECAM()))
	b.must(b.Ports.Map(portBase, pci.PortsSize, b.PCI.Ports(nil)))
	return b
}

func (b *Board) must(err error) {
	b.tb.Helper()
	if err != nil {
		b.tb.Fatal(err)
	}
}

// Transport is what virtio.PCI and virtio.MMIO have in common.
type Transport interface {
	Pause(time.Duration) error
	Resume()
	Release()
	Save() ([]byte, error)
	Load([]byte) error
	Close(time.Duration) error
}

// A Slot is a device on a board.
type Slot struct {
	Transport
	Device  virtio.Device
	Kind    Kind
	IRQ     *Signals  // MMIO only
	Vectors []*Vector // MSI-X only
	Line    *Line     // INTx only
	slot    int       // PCI only
	base    uint64    // MMIO only
}

// Add puts dev on the board.
func (b *Board) Add(kind Kind, dev virtio.Device) *Slot {
	b.tb.Helper()
	s := &Slot{Device: dev, Kind: kind}
	cfg := virtio.Config{Mem: b.RAM, Log: slog.New(slog.DiscardHandler), Owner: b.Owner, Broken: b.Broken}
	if kind == MMIO {
		s.IRQ = newSignals()
		s.base = mmioBase + virtio.MMIOSize*uint64(len(b.Slots))
		t, err := virtio.NewMMIO(dev, s.base, s.IRQ, cfg)
		b.must(err)
		b.must(b.Memory.Map(s.base, virtio.MMIOSize, t))
		s.Transport = t
	} else {
		t, err := virtio.NewPCI(dev, 0xff0000, cfg)
		b.must(err)
		var vectors []pci.Vector
		for range t.Vectors() {
			v := &Vector{Signals: newSignals()}
			s.Vectors = append(s.Vectors, v)
			vectors = append(vectors, v)
		}
		b.must(t.Attach(b.PCI, vectors))
		b.pciDev++
		s.slot, s.Line = b.pciDev, b.Lines[b.pciDev%len(b.Lines)]
		s.Transport = t
	}
	b.Slots = append(b.Slots, s)
	return s
}

// Close closes all devices.
func (b *Board) Close() {
	b.tb.Helper()
	for _, s := range b.Slots {
		s.Release()
		b.must(s.Close(Deadline))
	}
}

// state is a snapshot of a board without its RAM.
type state struct {
	PCI     json.RawMessage
	Devices []json.RawMessage
}

// Pause pauses all devices.
func (b *Board) Pause() {
	b.tb.Helper()
	for _, s := range b.Slots {
		s.Release()
		b.must(s.Pause(Deadline))
	}
}

// Resume resumes all devices.
func (b *Board) Resume() {
	for _, s := range b.Slots {
		s.Resume()
	}
}

// Save returns the state of a paused board.
func (b *Board) Save() []byte {
	b.tb.Helper()
	var s state
	var err error
	s.PCI, err = b.PCI.Save()
	b.must(err)
	for _, d := range b.Slots {
		one, err := d.Save()
		b.must(err)
		s.Devices = append(s.Devices, one)
	}
	all, err := json.Marshal(s)
	b.must(err)
	return all
}

// Load sets the state of a new board with the same devices.
func (b *Board) Load(all []byte) {
	b.tb.Helper()
	var s state
	b.must(json.Unmarshal(all, &s))
	b.must(b.PCI.Load(s.PCI))
	for i, d := range b.Slots {
		b.must(d.Load(s.Devices[i]))
	}
}

// bytes returns a range of RAM, which must exist.
func (b *Board) bytes(a mem.Addr, n uint64) []byte {
	b.tb.Helper()
	p, err := b.RAM.Slice(a, n)
	b.must(err)
	return p
}

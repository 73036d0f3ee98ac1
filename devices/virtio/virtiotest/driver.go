package virtiotest

import (
	"testing"
	"time"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

// A Driver drives one device, using only bus accesses and RAM.
type Driver struct {
	tb     testing.TB
	Board  *Board
	Slot   *Slot
	Queues []*Queue // set once started
	Sizes  []uint16 // the largest ones
	access access

	rings, buffers zone
}

// Setup is how a driver uses its device.
type Setup struct {
	Features uint64 // negotiated besides VERSION_1
	Size     uint16 // of each queue; 0 means 16; no more than the device allows
	Cut      int    // the largest buffer of a chain, in bytes; 0: no limit
	Indirect bool   // chains are in tables; needs the feature
	Shared   bool   // PCI: all queues use vector 0
	Silent   bool   // PCI: no queue has a vector
}

// NewDriver returns the driver of a slot. Its RAM is that of a board's first device
// or, if second is set, of the second.
func NewDriver(tb testing.TB, b *Board, s *Slot, second bool) *Driver {
	tb.Helper()
	d := &Driver{tb: tb, rings: zone{addr: lowBase, end: lowBase + ringsSize}, buffers: zone{addr: lowBase + ringsSize, end: lowBase + zoneSize}}
	if second {
		base := lowBase + zoneSize
		d.rings, d.buffers = zone{addr: base, end: base + otherRings}, zone{addr: base + otherRings, end: base + otherSize}
	}
	d.Attach(b, s)
	d.reset()
	for i := range s.Device.QueueSizes() {
		d.Set(QueueSelect, uint32(i))
		d.Sizes = append(d.Sizes, uint16(d.maxSize()))
	}
	return d
}

// Attach makes the driver continue with a device in another slot, such as one of a
// restored board.
func (d *Driver) Attach(b *Board, s *Slot) {
	d.Board, d.Slot = b, s
	if s.Kind == MMIO {
		d.access = &mmioAccess{b: b, s: s}
		d.access.find()
		return
	}
	p := &pciAccess{b: b, s: s}
	if old, ok := d.access.(*pciAccess); ok { // its BARs are where they were
		*p = *old
		p.b, p.s = b, s
		d.access = p
		return
	}
	d.access = p
	p.find()
}

// pci returns the access to a PCI device.
func (d *Driver) pci() *pciAccess { return d.access.(*pciAccess) }

// Get reads a register of the transport. A register that it lacks reads as 0.
func (d *Driver) Get(r Register) uint32 {
	addr, width := d.access.register(r)
	if width == 0 {
		return 0
	}
	return d.Board.read(addr, width)
}

// Set writes a register of the transport, if it exists.
func (d *Driver) Set(r Register, v uint32) {
	if addr, width := d.access.register(r); width != 0 {
		d.Board.write(addr, width, v)
	}
}

// maxSize returns the largest size of the selected queue. The size must not be set
// yet.
func (d *Driver) maxSize() uint32 {
	if d.Slot.Kind == MMIO {
		return d.Get(QueueSizeMax)
	}
	return d.Get(QueueSize)
}

// ReadConfig reads the device's configuration in one access.
func (d *Driver) ReadConfig(off uint64, p []byte) {
	addr, _ := d.access.config()
	d.Board.Memory.Read(addr+off, p)
}

// WriteConfig writes the device's configuration in one access.
func (d *Driver) WriteConfig(off uint64, p []byte) {
	addr, _ := d.access.config()
	d.Board.Memory.Write(addr+off, p)
}

// notify notifies the device of a queue, which may not exist.
func (d *Driver) notify(queue int) {
	b, addr, value := d.access.notify(queue)
	b.Write(addr, value)
}

// ConfigSignals returns the Signals of configuration changes.
func (d *Driver) ConfigSignals() *Signals { return d.access.signals(-1) }

// Offered returns the features that the device offers.
func (d *Driver) Offered() uint64 {
	d.Set(DeviceFeatureSelect, 0)
	low := d.Get(DeviceFeature)
	d.Set(DeviceFeatureSelect, 1)
	return uint64(d.Get(DeviceFeature))<<32 | uint64(low)
}

// Choose writes the driver's features.
func (d *Driver) Choose(f uint64) {
	d.Set(DriverFeatureSelect, 0)
	d.Set(DriverFeature, uint32(f))
	d.Set(DriverFeatureSelect, 1)
	d.Set(DriverFeature, uint32(f>>32))
}

// reset resets the device and waits for it, §2.4.2.
func (d *Driver) reset() {
	d.tb.Helper()
	d.Set(Status, 0)
	d.until("the end of the reset", func() bool { return d.Get(Status) == 0 })
	d.access.handle()
	d.Queues = nil
	d.rings.reset()
	d.buffers.reset()
}

// A step is one step of device initialization, §3.1.1.
type step struct {
	name string
	do   func()
}

// steps returns the steps of Start. The device must be reset.
func (d *Driver) steps(s Setup) []step {
	size := s.Size
	if size == 0 {
		size = 16
	}
	features := s.Features | virtio.FeatureVersion1
	status := uint32(0)
	set := func(bit uint32) func() {
		return func() {
			status |= bit
			d.Set(Status, status)
		}
	}
	all := []step{
		{"ACKNOWLEDGE", set(virtio.StatusAcknowledge)},
		{"DRIVER", set(virtio.StatusDriver)},
		{"features", func() { d.Choose(features) }},
		{"FEATURES_OK", func() {
			set(virtio.StatusFeaturesOK)()
			if d.Get(Status)&virtio.StatusFeaturesOK == 0 {
				d.tb.Helper()
				d.tb.Fatalf("the device refuses features %#x, offers %#x", features, d.Offered())
			}
		}},
	}
	if d.Slot.Kind == MSIX {
		all = append(all, step{"config vector", func() { d.Set(ConfigVector, uint32(len(d.Sizes))) }})
	}
	for i, most := range d.Sizes {
		q := d.newQueue(i, min(size, most), features, s)
		all = append(all, step{"queue", q.place}, step{"enable", q.enable})
	}
	return append(all, step{"DRIVER_OK", set(virtio.StatusDriverOK)})
}

// Bring resets the device and initializes it, up to and including DRIVER_OK.
func (d *Driver) Bring(s Setup) {
	d.tb.Helper()
	d.reset()
	for _, step := range d.steps(s) {
		step.do()
	}
}

// Start is Bring, and checks that the device works afterwards.
func (d *Driver) Start(s Setup) {
	d.tb.Helper()
	d.Bring(s)
	if got := d.Get(Status); got != 15 {
		d.tb.Fatalf("status %#x after the start", got)
	}
}

// format returns what features mean for the rings.
func format(features uint64) virtq.Format {
	has := func(f uint64) bool { return features&f != 0 }
	return virtq.Format{Packed: has(virtio.FeatureRingPacked), Indirect: has(virtio.FeatureIndirectDesc), EventIdx: has(virtio.FeatureEventIdx)}
}

// until polls for a condition that no interrupt reports.
func (d *Driver) until(what string, cond func() bool) {
	d.tb.Helper()
	until(d.tb, what, cond)
}

func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	if cond() {
		return
	}
	tick := time.NewTicker(50 * time.Microsecond)
	defer tick.Stop()
	for end := time.After(Deadline); !cond(); {
		select {
		case <-tick.C:
		case <-end:
			tb.Fatalf("timeout: %s", what)
		}
	}
}

// A zone is RAM to allocate from.
type zone struct {
	addr, end mem.Addr
	used      mem.Addr
	free      map[mem.Addr][]mem.Addr // by size
}

func (z *zone) reset() { z.used, z.free = 0, map[mem.Addr][]mem.Addr{} }

// round returns the size of the block that holds n bytes.
func round(n int) mem.Addr {
	size := mem.Addr(16)
	for size < mem.Addr(n) {
		size *= 2
	}
	return size
}

// take returns the address of n bytes of RAM, or 0.
func (z *zone) take(n int) mem.Addr {
	size := round(n)
	if list := z.free[size]; len(list) > 0 {
		z.free[size] = list[:len(list)-1]
		return list[len(list)-1]
	}
	a := (z.addr + z.used + 15) &^ 15
	if a+size > z.end {
		return 0
	}
	z.used = a + size - z.addr
	return a
}

func (z *zone) give(a mem.Addr, n int) { z.free[round(n)] = append(z.free[round(n)], a) }

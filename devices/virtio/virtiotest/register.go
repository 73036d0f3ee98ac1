package virtiotest

import "vmm/bus"

// A Register is a register of both transports, named as in §4.1.4.3, or of one of
// them.
type Register int

// All registers. Those with High are the upper halves of the ones before.
const (
	DeviceFeatureSelect Register = iota
	DeviceFeature
	DriverFeatureSelect
	DriverFeature
	Status
	Generation
	QueueSelect
	QueueSize
	QueueEnable
	QueueDesc
	QueueDescHigh
	QueueDriver
	QueueDriverHigh
	QueueDevice
	QueueDeviceHigh
	QueueReset
	ISR

	// PCI only.
	ConfigVector
	NumQueues
	QueueVector
	QueueNotifyOff
	QueueNotifyData

	// MMIO only.
	QueueSizeMax
	InterruptACK

	registers
)

// noVector is VIRTIO_MSI_NO_VECTOR.
const noVector = 0xffff

// A place is where a register is. Width 0 means that the transport does not have it.
type place struct {
	off   uint64
	width int
}

// commonPlaces are in struct virtio_pci_common_cfg, §4.1.4.3.
var commonPlaces = [registers]place{
	DeviceFeatureSelect: {0x00, 4}, DeviceFeature: {0x04, 4}, DriverFeatureSelect: {0x08, 4}, DriverFeature: {0x0c, 4},
	ConfigVector: {0x10, 2}, NumQueues: {0x12, 2}, Status: {0x14, 1}, Generation: {0x15, 1},
	QueueSelect: {0x16, 2}, QueueSize: {0x18, 2}, QueueVector: {0x1a, 2}, QueueEnable: {0x1c, 2}, QueueNotifyOff: {0x1e, 2},
	QueueDesc: {0x20, 4}, QueueDescHigh: {0x24, 4}, QueueDriver: {0x28, 4}, QueueDriverHigh: {0x2c, 4},
	QueueDevice: {0x30, 4}, QueueDeviceHigh: {0x34, 4}, QueueNotifyData: {0x38, 2}, QueueReset: {0x3a, 2},
}

const commonSize = 0x3c

// mmioPlaces are the places in §4.2.2.
var mmioPlaces = [registers]place{
	DeviceFeature: {0x10, 4}, DeviceFeatureSelect: {0x14, 4}, DriverFeature: {0x20, 4}, DriverFeatureSelect: {0x24, 4},
	QueueSelect: {0x30, 4}, QueueSizeMax: {0x34, 4}, QueueSize: {0x38, 4}, QueueEnable: {0x44, 4},
	ISR: {0x60, 4}, InterruptACK: {0x64, 4}, Status: {0x70, 4},
	QueueDesc: {0x80, 4}, QueueDescHigh: {0x84, 4}, QueueDriver: {0x90, 4}, QueueDriverHigh: {0x94, 4},
	QueueDevice: {0xa0, 4}, QueueDeviceHigh: {0xa4, 4}, QueueReset: {0xc0, 4}, Generation: {0xfc, 4},
}

const (
	mmioNotify = 0x50
	mmioConfig = 0x100
)

// access is how a driver accesses its device: places on the memory bus, except for
// notifications.
type access interface {
	// find finds the device again, wherever it is, and makes it answer.
	find()
	register(Register) (addr uint64, width int)
	config() (addr, size uint64)
	// notify returns the write that notifies, and its bus.
	notify(queue int) (b *bus.Bus, addr uint64, value []byte)
	// signals returns the Signals of a queue or, with -1, of the configuration.
	signals(queue int) *Signals
	// handle is the interrupt handler. It returns the ISR, if there is one.
	handle() uint32
}

// mmioAccess is the memory-mapped transport.
type mmioAccess struct {
	b *Board
	s *Slot
}

func (a *mmioAccess) find() {
	for off, want := range map[uint64]uint32{0: 0x74726976, 4: 2, 8: uint32(a.s.Device.ID())} {
		if got := a.b.read(a.s.base+off, 4); got != want {
			a.b.tb.Fatalf("MMIO register %#x is %#x, want %#x", off, got, want)
		}
	}
}

func (a *mmioAccess) register(r Register) (uint64, int) {
	p := mmioPlaces[r]
	return a.s.base + p.off, p.width
}

func (a *mmioAccess) config() (uint64, uint64) { return a.s.base + mmioConfig, 0x1000 - mmioConfig }

func (a *mmioAccess) notify(queue int) (*bus.Bus, uint64, []byte) {
	return &a.b.Memory, a.s.base + mmioNotify, le.AppendUint32(nil, uint32(queue))
}

func (a *mmioAccess) signals(int) *Signals { return a.s.IRQ }

func (a *mmioAccess) handle() uint32 {
	v := a.b.read(a.s.base+mmioPlaces[ISR].off, 4)
	if v != 0 {
		a.b.write(a.s.base+mmioPlaces[InterruptACK].off, 4, v)
	}
	return v
}

// read and write access up to 4 bytes on the memory bus.
func (b *Board) read(addr uint64, width int) uint32 {
	var p [4]byte
	b.Memory.Read(addr, p[:width])
	return le.Uint32(p[:])
}

func (b *Board) write(addr uint64, width int, v uint32) {
	var p [4]byte
	le.PutUint32(p[:], v)
	b.Memory.Write(addr, p[:width])
}

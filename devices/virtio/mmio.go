package virtio

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"vmm/bus"
	"vmm/mem"
)

var le = binary.LittleEndian

// Registers of the memory-mapped transport, §4.2.2.
const (
	mmioMagicValue        = 0x000
	mmioVersion           = 0x004
	mmioDeviceID          = 0x008
	mmioVendorID          = 0x00c
	mmioDeviceFeatures    = 0x010
	mmioDeviceFeaturesSel = 0x014
	mmioDriverFeatures    = 0x020
	mmioDriverFeaturesSel = 0x024
	mmioQueueSel          = 0x030
	mmioQueueNumMax       = 0x034
	mmioQueueNum          = 0x038
	mmioQueueReady        = 0x044
	mmioQueueNotify       = 0x050
	mmioInterruptStatus   = 0x060
	mmioInterruptACK      = 0x064
	mmioStatus            = 0x070
	mmioQueueDescLow      = 0x080
	mmioQueueDescHigh     = 0x084
	mmioQueueDriverLow    = 0x090
	mmioQueueDriverHigh   = 0x094
	mmioQueueDeviceLow    = 0x0a0
	mmioQueueDeviceHigh   = 0x0a4
	mmioSHMLenLow         = 0x0b0
	mmioSHMBaseHigh       = 0x0bc
	mmioQueueReset        = 0x0c0
	mmioConfigGeneration  = 0x0fc
	mmioConfig            = 0x100

	magicValue = 0x74726976 // "virt"
	vendorID   = 0x4d4d56   // "VMM"
)

// MMIOSize is the size of an MMIO's register window, in bytes.
const MMIOSize = 0x1000

// Bits of the interrupt status, §4.1.4.5 and §4.2.2.
const (
	isrQueue  = 1
	isrConfig = 2
)

// MMIO is a device behind the memory-mapped transport (§4.2), version 2.
type MMIO struct {
	*core
	pin pin
}

// NewMMIO returns dev behind the memory-mapped transport, to be mapped at base.
// irq is edge-triggered. The caller closes it, paused or never started.
func NewMMIO(dev Device, base uint64, irq bus.Interrupt, cfg Config) (*MMIO, error) {
	return mmioOn(dev, base, &edgePin{irq: irq}, cfg)
}

// NewMMIOLine is NewMMIO with a level interrupt: high until the driver has
// acknowledged everything. A driver that ACPI or a device tree did not tell the
// trigger mode may treat it as level or edge.
func NewMMIOLine(dev Device, base uint64, line bus.Line, cfg Config) (*MMIO, error) {
	return mmioOn(dev, base, &linePin{line: line}, cfg)
}

func mmioOn(dev Device, base uint64, p pin, cfg Config) (*MMIO, error) {
	c, err := newCore(dev, cfg)
	if err != nil {
		return nil, err
	}
	t := &MMIO{core: c, pin: p}
	c.notify = func(queue int) {
		if queue == configChange {
			t.pin.raise(isrConfig)
		} else {
			t.pin.raise(isrQueue)
		}
	}
	c.cleared = func(queue int) {
		if queue == configChange {
			t.pin.acknowledge(isrQueue | isrConfig)
		}
	}
	if cfg.Doorbells != nil {
		for i, kick := range c.kicks {
			if err := cfg.Doorbells.Assign(kick, Bell{Addr: base + mmioQueueNotify, Len: 4, Value: uint32(i)}); err != nil {
				return nil, errors.Join(err, c.closeKicks())
			}
		}
	}
	return t, nil
}

// Read implements bus.Device.
func (t *MMIO) Read(off uint64, p []byte) {
	if off >= mmioConfig {
		clear(p)
		t.dev.ReadConfig(off-mmioConfig, p)
		return
	}
	if len(p) != 4 || off%4 != 0 {
		clear(p) // §4.2.2.2: the driver must not do this
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	le.PutUint32(p, t.read(off))
}

// read handles a read of a register. The caller holds mu.
func (t *MMIO) read(off uint64) uint32 {
	switch off {
	case mmioMagicValue:
		return magicValue
	case mmioVersion:
		return 2
	case mmioDeviceID:
		return uint32(t.dev.ID())
	case mmioVendorID:
		return vendorID
	case mmioDeviceFeatures:
		return window(t.offered(), t.regs.FeatureSel)
	case mmioInterruptStatus:
		return t.pin.status()
	case mmioStatus:
		return uint32(t.status())
	case mmioConfigGeneration:
		return t.generation.Load()
	}
	if off >= mmioSHMLenLow && off <= mmioSHMBaseHigh {
		return 0xffffffff // no shared memory, §4.2.2.1
	}
	q := t.selected()
	if q == nil {
		return 0
	}
	switch off {
	case mmioQueueNumMax:
		return uint32(t.dev.QueueSizes()[t.regs.QueueSel])
	case mmioQueueReady:
		return bit(q.Enabled)
	case mmioQueueReset:
		return bit(q.Resetting)
	}
	return 0
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// Write implements bus.Device. A reset makes the vCPU wait for the requests under
// way, because Linux's MMIO driver does not poll the status as its PCI driver does.
func (t *MMIO) Write(off uint64, p []byte) {
	if off >= mmioConfig {
		t.dev.WriteConfig(off-mmioConfig, p)
		return
	}
	if len(p) != 4 || off%4 != 0 {
		return
	}
	t.wait(t.write(off, le.Uint32(p)), mmioPatience)
}

// write handles a write of a register. It returns what to wait for, or nil.
func (t *MMIO) write(off uint64, v uint32) <-chan struct{} {
	switch off {
	case mmioQueueNotify:
		t.kick(v)
		return nil
	case mmioInterruptACK:
		t.pin.acknowledge(v)
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch off {
	case mmioStatus:
		return t.setStatus(uint8(v))
	case mmioDeviceFeaturesSel:
		t.regs.FeatureSel = v
	case mmioDriverFeaturesSel:
		t.regs.DriverSel = v
	case mmioDriverFeatures:
		t.setDriverFeatures(v)
	case mmioQueueSel:
		t.regs.QueueSel = v
	case mmioQueueReady:
		if v&1 != 0 {
			t.enableQueue()
		} else {
			return t.disableQueue()
		}
	case mmioQueueReset:
		if v&1 != 0 {
			return t.resetQueue()
		}
	default:
		t.writeQueue(off, v)
	}
	return nil
}

// writeQueue handles a write of a queue's size or addresses. The caller holds mu.
func (t *MMIO) writeQueue(off uint64, v uint32) {
	q := t.writable()
	if q == nil {
		return
	}
	switch off {
	case mmioQueueNum:
		t.setSize(q, v)
	case mmioQueueDescLow:
		setLow(&q.Desc, v)
	case mmioQueueDescHigh:
		setHigh(&q.Desc, v)
	case mmioQueueDriverLow:
		setLow(&q.Driver, v)
	case mmioQueueDriverHigh:
		setHigh(&q.Driver, v)
	case mmioQueueDeviceLow:
		setLow(&q.Device, v)
	case mmioQueueDeviceHigh:
		setHigh(&q.Device, v)
	}
}

func setLow(a *mem.Addr, v uint32)  { *a = *a&^0xffffffff | mem.Addr(v) }
func setHigh(a *mem.Addr, v uint32) { *a = *a&0xffffffff | mem.Addr(v)<<32 }

// mmioState is an MMIO's snapshot.
type mmioState struct {
	Core json.RawMessage
	ISR  uint32 `json:",omitempty"`
}

// Save returns the state of a paused device.
func (t *MMIO) Save() ([]byte, error) {
	core, err := t.save()
	if err != nil {
		return nil, err
	}
	return json.Marshal(mmioState{core, t.pin.status()})
}

// Load sets the state of a device that was never started; Resume starts it.
func (t *MMIO) Load(b []byte) error {
	var s mmioState
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("virtio: %w", err)
	}
	if isr := s.ISR & (isrQueue | isrConfig); isr != 0 {
		t.pin.raise(isr)
	}
	return t.load(s.Core)
}

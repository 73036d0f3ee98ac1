package virtio

import "vmm/mem"

// Fields of struct virtio_pci_common_cfg, §4.1.4.3.
const (
	commonDeviceFeatureSelect = 0x00
	commonDeviceFeature       = 0x04
	commonDriverFeatureSelect = 0x08
	commonDriverFeature       = 0x0c
	commonConfigVector        = 0x10
	commonNumQueues           = 0x12
	commonDeviceStatus        = 0x14
	commonConfigGeneration    = 0x15
	commonQueueSelect         = 0x16
	commonQueueSize           = 0x18
	commonQueueVector         = 0x1a
	commonQueueEnable         = 0x1c
	commonQueueNotifyOff      = 0x1e
	commonQueueDesc           = 0x20
	commonQueueDriver         = 0x28
	commonQueueDevice         = 0x30
	commonQueueNotifyData     = 0x38
	commonQueueReset          = 0x3a
	commonSize                = 0x3c
)

// commonWidth returns the width of the field that begins at an offset, or 0 if none
// does. A 64-bit address is accessed as two fields of 4 bytes each (§4.1.3.1).
func commonWidth(off uint64) int {
	switch {
	case off < commonConfigVector || off >= commonQueueDesc && off < commonQueueNotifyData:
		if off%4 == 0 {
			return 4
		}
	case off == commonDeviceStatus || off == commonConfigGeneration:
		return 1
	case off < commonSize && off%2 == 0:
		return 2
	}
	return 0
}

// pciWindow is the memory BAR of a PCI device.
type pciWindow struct{ *PCI }

// Read implements bus.Device.
func (t pciWindow) Read(off uint64, p []byte) {
	clear(p)
	switch off / pciStructure * pciStructure {
	case pciCommon:
		if len(p) == commonWidth(off) {
			var v [4]byte
			le.PutUint32(v[:], t.readCommon(off))
			copy(p, v[:])
		}
	case pciISR:
		if off == pciISR {
			p[0] = t.readISR()
		}
	case pciConfig:
		t.dev.ReadConfig(off-pciConfig, p)
	}
}

// Write implements bus.Device.
func (t pciWindow) Write(off uint64, p []byte) { t.wait(t.write(off, p), pciPatience) }

// write is Write without the wait. It returns what to wait for, or nil.
func (t pciWindow) write(off uint64, p []byte) <-chan struct{} {
	switch off / pciStructure * pciStructure {
	case pciCommon:
		if len(p) == commonWidth(off) {
			var v [4]byte
			copy(v[:], p)
			return t.writeCommon(off, le.Uint32(v[:]))
		}
	case pciConfig:
		t.dev.WriteConfig(off-pciConfig, p)
	case pciNotify:
		// The offset selects the queue, whatever value is written, §4.1.5.2.
		if at := off - pciNotify; at%notifyMultiplier == 0 {
			t.kick(uint32(at / notifyMultiplier))
		}
	}
	return nil
}

func (t pciWindow) readCommon(off uint64) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch off {
	case commonDeviceFeatureSelect:
		return t.regs.FeatureSel
	case commonDeviceFeature:
		return window(t.offered(), t.regs.FeatureSel)
	case commonDriverFeatureSelect:
		return t.regs.DriverSel
	case commonDriverFeature:
		return window(t.regs.DriverFeatures, t.regs.DriverSel)
	case commonConfigVector:
		return t.vectors[len(t.kicks)].Load()
	case commonNumQueues:
		return uint32(len(t.kicks))
	case commonDeviceStatus:
		return uint32(t.status())
	case commonConfigGeneration:
		return t.generation.Load() & 0xff
	case commonQueueSelect:
		return t.regs.QueueSel
	}
	if q := t.selected(); q != nil {
		return t.readQueue(q, off)
	}
	if off == commonQueueVector {
		return noVector
	}
	return 0 // a size of 0 means that the queue does not exist
}

// readQueue reads a field of the selected queue. The caller holds mu.
func (t pciWindow) readQueue(q *QueueRegisters, off uint64) uint32 {
	switch off {
	case commonQueueSize:
		return uint32(q.Size)
	case commonQueueVector:
		return t.vectors[t.regs.QueueSel].Load()
	case commonQueueEnable:
		return bit(q.Enabled)
	case commonQueueNotifyOff, commonQueueNotifyData:
		return t.regs.QueueSel
	case commonQueueDesc:
		return uint32(q.Desc)
	case commonQueueDesc + 4:
		return uint32(q.Desc >> 32)
	case commonQueueDriver:
		return uint32(q.Driver)
	case commonQueueDriver + 4:
		return uint32(q.Driver >> 32)
	case commonQueueDevice:
		return uint32(q.Device)
	case commonQueueDevice + 4:
		return uint32(q.Device >> 32)
	case commonQueueReset:
		return bit(q.Resetting)
	}
	return 0
}

func (t pciWindow) writeCommon(off uint64, v uint32) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch off {
	case commonDeviceFeatureSelect:
		t.regs.FeatureSel = v
	case commonDriverFeatureSelect:
		t.regs.DriverSel = v
	case commonDriverFeature:
		t.setDriverFeatures(v)
	case commonConfigVector:
		if !t.frozen() {
			t.vector(len(t.kicks), uint16(v))
		}
	case commonDeviceStatus:
		return t.setStatus(uint8(v))
	case commonQueueSelect:
		t.regs.QueueSel = v
	case commonQueueEnable:
		if v == 1 { // §4.1.4.3.2: the driver must not write 0
			t.enableQueue()
		}
	case commonQueueReset:
		if v == 1 {
			return t.resetQueue()
		}
	case commonQueueVector:
		if q := t.selected(); q != nil && !t.frozen() {
			t.vector(int(t.regs.QueueSel), uint16(v))
		}
	default:
		if q := t.writable(); q != nil {
			t.writeQueue(q, off, v)
		}
	}
	return nil
}

// writeQueue handles a write of a queue's size or addresses. The caller holds mu.
func (t pciWindow) writeQueue(q *QueueRegisters, off uint64, v uint32) {
	set := func(a *mem.Addr) {
		if off%8 == 0 {
			setLow(a, v)
		} else {
			setHigh(a, v)
		}
	}
	switch off &^ 7 {
	case commonQueueSize:
		if off == commonQueueSize {
			t.setSize(q, v)
		}
	case commonQueueDesc:
		set(&q.Desc)
	case commonQueueDriver:
		set(&q.Driver)
	case commonQueueDevice:
		set(&q.Device)
	}
}

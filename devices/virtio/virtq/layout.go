package virtq

import (
	"fmt"

	"vmm/mem"
)

// Layout is where the driver placed a queue, §2.6.
type Layout struct {
	Size   uint16   // of the ring, in descriptors
	Desc   mem.Addr // descriptor area
	Driver mem.Addr // driver area: available ring, or driver event suppression
	Device mem.Addr // device area: used ring, or device event suppression
}

// Format is what was negotiated about queues.
type Format struct {
	Packed   bool // VIRTIO_F_RING_PACKED
	Indirect bool // VIRTIO_F_INDIRECT_DESC
	EventIdx bool // VIRTIO_F_EVENT_IDX
}

// Fresh returns the state of a queue that was never used. In a packed ring the wrap
// counters begin at 1 (§2.8.1).
func (f Format) Fresh() State {
	if f.Packed {
		return State{Avail: 1 << wrapShift, Used: 1 << wrapShift}
	}
	return State{}
}

// maxSize is the largest queue size of either format.
const maxSize = 1 << 15

// check checks size and alignment, §2.7 and §2.8.10.1. Whether the areas are in RAM
// is checked when they are sliced.
func (l Layout) check(f Format) error {
	if l.Size == 0 || l.Size > maxSize {
		return fmt.Errorf("virtqueue: size %d: not in 1 to %d", l.Size, maxSize)
	}
	if !f.Packed && l.Size&(l.Size-1) != 0 {
		return fmt.Errorf("virtqueue: size %d: not a power of two", l.Size)
	}
	driver := mem.Addr(2)
	if f.Packed {
		driver = 4
	}
	for _, area := range []struct {
		name      string
		addr, per mem.Addr
	}{
		{"descriptor", l.Desc, 16},
		{"driver", l.Driver, driver},
		{"device", l.Device, 4},
	} {
		if area.addr%area.per != 0 {
			return fmt.Errorf("virtqueue: %s area %#x: not a multiple of %d", area.name, uint64(area.addr), area.per)
		}
	}
	return nil
}

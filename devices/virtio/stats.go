package virtio

import (
	"fmt"
	"sync/atomic"

	"vmm/devices/virtio/virtq"
	"vmm/histogram"
)

// counters are those of one queue.
type counters struct {
	virtq.Counters
	wakes atomic.Uint64
}

// QueueStats is what one queue has done since the device was made.
type QueueStats struct {
	virtq.Count
	Wakes uint64 // how often its goroutine was woken, by the driver or the device
}

// Stats is what a device has done since it was made.
type Stats struct {
	ID       ID
	Queues   []QueueStats
	Counters map[string]uint64             // specific to this kind of device; nil if it has none
	Latency  map[string]histogram.Snapshot // of its requests, by kind; nil if it has none
}

var names = map[ID]string{
	IDNet: "net", IDBlock: "disk", IDConsole: "console", IDEntropy: "rng", IDBalloon: "balloon", IDSocket: "vsock", IDFS: "share",
}

// String names the kind of device.
func (id ID) String() string {
	if s, ok := names[id]; ok {
		return s
	}
	return fmt.Sprintf("virtio%d", uint16(id))
}

// A Counter is a device that counts more than its queues do. Its methods are called
// on any goroutine, at any time.
type Counter interface {
	Counters() map[string]uint64
	Latency() map[string]histogram.Snapshot
}

// Stats returns what the device has done. It costs the device nothing.
func (c *core) Stats() Stats {
	s := Stats{ID: c.dev.ID()}
	for i := range c.count {
		s.Queues = append(s.Queues, QueueStats{c.count[i].Load(), c.count[i].wakes.Load()})
	}
	if d, ok := c.dev.(Counter); ok {
		s.Counters, s.Latency = d.Counters(), d.Latency()
	}
	return s
}

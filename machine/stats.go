package machine

import (
	"fmt"
	"os"
	"strings"

	"vmm/devices/virtio"
	"vmm/devices/virtio/balloon"
)

// Stats holds a machine's counters and its memory use. All counters are updated
// without a lock on the path of an exit or a request.
type Stats struct {
	Memory   uint64 // bytes of the guest's RAM
	Resident uint64 // bytes of host memory of this whole process
	CPUs     []CPUStats
	Devices  []DeviceStats
}

// BalloonStats holds the balloon's statistics.
type BalloonStats = balloon.Stats

// DeviceStats holds the counters of one virtio device.
type DeviceStats struct {
	Name string // disk0, net1 and so on: the kind and a number within it
	virtio.Stats
}

// Stats returns the machine's counters so far. It may be called in any state.
func (m *Machine) Stats() Stats {
	s := Stats{Memory: m.config.Memory, Resident: resident("/proc/self/statm")}
	for _, v := range m.vcpus {
		s.CPUs = append(s.CPUs, v.stats.load())
	}
	kinds := map[virtio.ID]int{}
	for _, t := range m.devices.virtio {
		d := t.Stats()
		s.Devices = append(s.Devices, DeviceStats{fmt.Sprintf("%v%d", d.ID, kinds[d.ID]), d})
		kinds[d.ID]++
	}
	return s
}

// resident reads the second number of /proc/PID/statm, in pages, and returns bytes.
func resident(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	var size, pages uint64
	fmt.Sscan(strings.TrimSpace(string(b)), &size, &pages)
	return pages * uint64(os.Getpagesize())
}

// Done is closed when Run returns.
func (m *Machine) Done() <-chan struct{} { return m.done }

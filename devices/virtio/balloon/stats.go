package balloon

import (
	"time"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

// Tags of statistics, §5.5.6.4, with the names from Linux's header.
var statNames = [...]string{
	0: "swap-in", // bytes
	1: "swap-out",
	2: "major-faults",
	3: "minor-faults",
	4: "free-memory", // bytes, as are the next ones
	5: "total-memory",
	6: "available-memory",
	7: "disk-caches",
	8: "hugetlb-allocations",
	9: "hugetlb-failures",
}

// The entries that the driver writes, struct virtio_balloon_stat.
const (
	statSize   = 10
	statsBound = 64 // entries that are read: there are 10 kinds
)

// Stats is the state of the balloon. What the guest says of itself is not verified.
type Stats struct {
	Target   uint64 // bytes that it should have
	Actual   uint64 // bytes that it has, according to the guest
	Reported uint64 // total bytes of free pages that the guest reported and we gave back

	// Guest holds those statistics that the guest's driver knows, as of Time; nil if
	// there are none.
	Guest map[string]uint64 `json:",omitempty"`
	Time  time.Time         `json:",omitzero"`
}

// Stats returns the state of the balloon.
func (d *Device) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Stats{
		Target:   uint64(d.target) * mem.PageSize,
		Actual:   uint64(d.field(configActual)) * mem.PageSize,
		Reported: d.reported.Load(),
		Guest:    d.poll.guest, // replaced and never changed
		Time:     d.poll.at,
	}
}

// poll is the state of the repeated requests for the guest's statistics. The driver
// leaves a buffer with its last statistics in the queue; using it asks for new ones
// (§5.5.6.4). Guarded by Device.mu.
type poll struct {
	interval time.Duration // 0: never
	timer    *time.Timer
	ask      bool // use the buffer now
	asked    bool // the next buffer has the requested statistics
	guest    map[string]uint64
	at       time.Time
}

// PollStats asks the guest for its statistics every interval. 0 means never, except
// for those that the guest gives when it starts.
func (d *Device) PollStats(interval time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.poll.interval = interval
	if d.host != nil {
		d.poll.start()
	}
}

func (p *poll) start() {
	if p.interval > 0 {
		p.timer.Reset(p.interval)
	} else {
		p.timer.Stop()
	}
}

func (p *poll) forget() { p.ask, p.asked, p.guest, p.at = false, false, nil, time.Time{} }

// tick runs on the timer's goroutine.
func (d *Device) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host == nil || d.poll.interval == 0 {
		return
	}
	d.poll.ask = true
	d.host.Wake(queueStats)
	d.poll.start()
}

// stats looks at the buffer in the queue. It stays there until it is time to ask
// again: then it is used.
func (d *Device) stats(q *virtq.Queue) {
	for c := q.Pop(); c != nil; c = q.Pop() {
		if !d.look(c) {
			q.Unpop(c)
			return
		}
		q.Push(c, 0)
	}
}

// look reports whether to use a buffer. If the buffer has new statistics, look reads
// them.
func (d *Device) look(c *virtq.Chain) (use bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := &d.poll
	if p.ask {
		p.ask, p.asked = false, true
		return true
	}
	if p.asked || p.guest == nil {
		p.guest, p.at, p.asked = read(c), time.Now(), false
	}
	return false
}

// read returns the statistics in a buffer. Unknown and incomplete entries are ignored
// (§5.5.6.4.2).
func read(c *virtq.Chain) map[string]uint64 {
	stats := map[string]uint64{}
	var e [statSize]byte
	for i := 0; i < statsBound && c.ReadFull(e[:]); i++ {
		if tag := int(le.Uint16(e[:])); tag < len(statNames) {
			stats[statNames[tag]] = le.Uint64(e[2:])
		}
	}
	return stats
}

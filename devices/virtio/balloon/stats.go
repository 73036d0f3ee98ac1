package balloon

import (
	"time"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

// Tags of statistics, §5.5.6.4, by the names that Linux's header has for them.
var statNames = [...]string{
	0: "swap-in", // bytes
	1: "swap-out",
	2: "major-faults",
	3: "minor-faults",
	4: "free-memory", // bytes, as the next ones
	5: "total-memory",
	6: "available-memory",
	7: "disk-caches",
	8: "hugetlb-allocations",
	9: "hugetlb-failures",
}

// The entries that the driver writes, struct virtio_balloon_stat.
const (
	statSize   = 10
	statsBound = 64 // entries that are looked at: there are 10 kinds
)

// Stats is how the balloon is. What the guest says of itself is its own word.
type Stats struct {
	Target   uint64 // bytes that it shall have
	Actual   uint64 // bytes that it has, as the guest says
	Reported uint64 // bytes of free pages that the guest has told of and we gave back, in all

	// Guest has the guest's statistics, those that its driver knows, as they were
	// at Time; nil if there are none.
	Guest map[string]uint64 `json:",omitempty"`
	Time  time.Time         `json:",omitzero"`
}

// Stats returns how the balloon is.
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

// poll is how the guest is asked for its statistics, again and again. The driver
// leaves a buffer with the last ones in the queue; to use it is to ask for new
// ones (§5.5.6.4). Guarded by Device.mu.
type poll struct {
	interval time.Duration // 0: never
	timer    *time.Timer
	ask      bool // use the buffer
	asked    bool // the next buffer has what was asked for
	guest    map[string]uint64
	at       time.Time
}

// PollStats has the guest asked for its statistics so often; 0 is never, but for
// those that it gives at its start.
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

// stats looks at the buffer in the queue, which stays there until it is time to
// ask again: then it is used.
func (d *Device) stats(q *virtq.Queue) {
	for c := q.Pop(); c != nil; c = q.Pop() {
		if !d.look(c) {
			q.Unpop(c)
			return
		}
		q.Push(c, 0)
	}
}

// look returns whether a buffer is to be used. One that has news is read.
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

// read returns the statistics in a buffer. What is not known is ignored, as is
// what is not whole (§5.5.6.4.2).
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

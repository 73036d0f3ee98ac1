// Package balloon is the virtio memory balloon (§5.5). With it the host takes memory
// from a running guest and gives it back, and learns which pages the guest has free
// and its memory statistics.
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package balloon

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/mem"
	"vmm/task"
)

// Feature bits, §5.5.3.
const (
	featureStats        = 1 << 1 // VIRTIO_BALLOON_F_STATS_VQ
	featureDeflateOnOOM = 1 << 2 // VIRTIO_BALLOON_F_DEFLATE_ON_OOM
	featurePoison       = 1 << 4 // VIRTIO_BALLOON_F_PAGE_POISON
	featureReporting    = 1 << 5 // VIRTIO_BALLOON_F_PAGE_REPORTING
)

// Queues, §5.5.2. There is one more than the features require: the reports are queue
// 4, but Linux does not count queues that it does not use, and has them in queue 3,
// the queue of free page hints, which are not offered.
const (
	queueInflate = 0
	queueDeflate = 1
	queueStats   = 2
	queues       = 5

	// queueSize has room for the 32 ranges that Linux reports at once.
	queueSize = 128
)

// The configuration, struct virtio_balloon_config, §5.5.4.
const (
	configTarget = 0 // num_pages
	configActual = 4
	configPoison = 12
	configSize   = 16
)

// Memory is the guest's memory.
type Memory interface {
	Slice(a mem.Addr, n uint64) ([]byte, error)
	// Discard gives the memory under a slice back to the host.
	Discard(b []byte) error
}

// Device is a balloon.
//
//	SetTarget --> num_pages --> driver inflates, or deflates --> actual
//	                              |
//	                              v  page numbers, ranges of free pages
//	                            Memory.Discard
//
// A guest can only give pages of its own memory, whatever it says: to give any page
// at any time, twice, or one that holds a ring, hurts no one else. We keep no list of
// what is in the balloon, so none can grow.
type Device struct {
	Owner task.Owner // of its timers; set before the first Start

	memory Memory
	log    *slog.Logger

	negotiated atomic.Uint64
	reported   atomic.Uint64 // bytes of reported pages given back
	failed     atomic.Bool   // Discard failed, and that was logged
	scratch    [batch]uint32 // page numbers; used by the inflate queue's goroutine

	mu     sync.Mutex
	host   virtio.Host      // guarded by mu; nil: stopped
	notice virtio.Notice    // guarded by mu; of changes of config
	config [configSize]byte // guarded by mu
	target uint32           // guarded by mu; pages that the host wants; see yield
	again  *time.Timer      // guarded by mu; calls ask
	relief uint32           // guarded by mu; size of the last relief, in pages; see yield
	poll   poll             // guarded by mu
}

// New returns an empty balloon. A nil log discards.
func New(m Memory, log *slog.Logger) *Device {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Device{memory: m, log: log}
}

// ID implements virtio.Device.
func (*Device) ID() virtio.ID { return virtio.IDBalloon }

// Features implements virtio.Device.
func (*Device) Features() uint64 {
	return featureStats | featureDeflateOnOOM | featurePoison | featureReporting
}

// QueueSizes implements virtio.Device.
func (*Device) QueueSizes() []uint16 {
	sizes := make([]uint16, queues)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < configSize {
		copy(p, d.config[off:])
	}
}

// WriteConfig implements virtio.Device. The driver sets actual and poison_val.
func (d *Device) WriteConfig(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.field(configActual)
	for i, v := range p {
		switch at := off + uint64(i); {
		case at >= configActual && at < configActual+4, at >= configPoison && at < configPoison+4:
			d.config[at] = v
		}
	}
	d.yield(before)
}

// yield lets a driver keep what it took back because it ran out of memory
// (DEFLATE_ON_OOM). Its balloon is then smaller than we want, and the driver would
// continue to fill it: Linux takes the memory away again as fast as a program gets
// it, and neither ever finishes. It takes back a MiB at a time, each after a long
// search for other memory, in which the programs' own pages are evicted and reloaded.
// So yield asks for less than the driver has left us, by minRelief and then by twice
// as much each time, until it has taken nothing back for a while (askAgain). A driver
// that shrinks its balloon because it was asked to does not shrink it below the
// target. The caller holds mu.
func (d *Device) yield(before uint32) {
	actual := d.field(configActual)
	if d.negotiated.Load()&featureDeflateOnOOM == 0 || actual >= before || actual >= d.field(configTarget) {
		return
	}
	d.relief = max(minRelief, min(2*d.relief, 1<<30))
	le.PutUint32(d.config[configTarget:], actual-min(actual, d.relief))
	d.notice.Changed()
	if d.host != nil {
		d.again.Reset(askAgain)
	}
}

// minRelief is 16 MiB, in pages.
const minRelief = 16 << 20 / mem.PageSize

// askAgain is how long a guest that ran out of memory is left alone.
const askAgain = 30 * time.Second

// ask asks for all the pages that the host wants. It runs on the timer's goroutine.
func (d *Device) ask() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.relief = 0
	if d.host != nil && d.field(configTarget) != d.target {
		le.PutUint32(d.config[configTarget:], d.target)
		d.notice.Changed()
	}
}

// field returns a field of the configuration. The caller holds mu.
func (d *Device) field(off int) uint32 { return le.Uint32(d.config[off:]) }

// Start implements virtio.Device.
func (d *Device) Start(features uint64, h virtio.Host) error {
	d.negotiated.Store(features)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host = h
	d.notice.Start(h)
	if d.poll.timer == nil {
		d.poll.timer = d.Owner.AfterFunc(time.Hour, d.tick)
		d.again = d.Owner.AfterFunc(time.Hour, d.ask)
	}
	d.again.Reset(askAgain)
	d.poll.start()
	return nil
}

// Stop implements virtio.Device.
func (d *Device) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host = nil
	d.notice.Stop()
	d.poll.timer.Stop()
	d.again.Stop()
}

// Reset implements virtio.Resetter. What the driver said is forgotten, and with it
// its balloon. Our target stays.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.config[configActual:])
	le.PutUint32(d.config[configTarget:], d.target)
	d.relief = 0
	d.notice.Reset()
	d.poll.forget()
}

// Serve implements virtio.Device.
func (d *Device) Serve(queue int, q *virtq.Queue) {
	has := func(bit uint64) bool { return d.negotiated.Load()&bit != 0 }
	switch {
	case queue == queueInflate:
		d.inflate(q)
	case queue == queueDeflate:
		deflate(q)
	case queue == queueStats && has(featureStats):
		d.stats(q)
	default:
		d.report(q)
	}
}

// SetTarget sets how large the balloon should be, in bytes, rounded down to pages.
// The driver follows in its own time, as far as it can; a paused one after it
// resumes.
func (d *Device) SetTarget(bytes uint64) {
	pages := uint32(min(bytes/mem.PageSize, 1<<32-1))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target, d.relief = pages, 0
	if d.field(configTarget) == pages {
		return
	}
	le.PutUint32(d.config[configTarget:], pages)
	d.notice.Changed()
}

// saved is the state of a balloon, for a Saver.
type saved struct {
	Target, Asked, Actual, Poison uint32 // Asked is num_pages
	virtio.Notice
}

// Save implements virtio.Saver.
func (d *Device) Save() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return json.Marshal(saved{d.target, d.field(configTarget), d.field(configActual), d.field(configPoison), d.notice})
}

// Load implements virtio.Saver. Any value is valid.
func (d *Device) Load(b []byte) error {
	var s saved
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("balloon: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target = s.Target
	le.PutUint32(d.config[configTarget:], s.Asked)
	le.PutUint32(d.config[configActual:], s.Actual)
	le.PutUint32(d.config[configPoison:], s.Poison)
	d.notice.Due = s.Due
	return nil
}

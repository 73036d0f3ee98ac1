// Package rng is the virtio entropy device (§5.4).
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package rng

import (
	"crypto/rand"
	"io"
	"log/slog"
	"sync"
	"time"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/logline"
	"vmm/task"
)

const (
	// queueSize is small: Linux has one request in flight.
	queueSize = 64

	// maxRequest bounds the work of one request: its buffers may overlap, so their
	// lengths do not reflect the guest's real memory. A driver must accept fewer
	// bytes than it has room for (§5.4.6.2).
	maxRequest = 64 << 10

	// period is how often a limited rate is refilled.
	period = 100 * time.Millisecond
)

// Device gives the guest random bytes. It has no state that a guest can see.
type Device struct {
	Owner task.Owner   // of its timer; set before the first Start, as is Log
	Log   *slog.Logger // nil discards

	source io.Reader
	share  int // bytes per period; 0 is no limit

	// Used by the queue's goroutine. They outlive Stop: a guest must not gain by
	// resetting the device.
	left  int       // bytes of the share left
	until time.Time // when the period ends

	timer  *time.Timer
	failed *logline.Line // of the source

	mu   sync.Mutex
	host virtio.Host // guarded by mu; nil: stopped
}

// New returns a device that takes its bytes from source; nil is the host's kernel. A
// guest gets at most rate bytes a second, rounded to the ten periods in a second; 0
// is no limit. Without a limit, a guest that never stops asking keeps a host CPU
// busy.
func New(source io.Reader, rate int) *Device {
	if source == nil {
		source = rand.Reader
	}
	d := &Device{source: source}
	if rate > 0 {
		d.share = max(rate/int(time.Second/period), 1)
	}
	return d
}

// ID implements virtio.Device.
func (*Device) ID() virtio.ID { return virtio.IDEntropy }

// Features implements virtio.Device. There are none (§5.4.3).
func (*Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device.
func (*Device) QueueSizes() []uint16 { return []uint16{queueSize} }

// ReadConfig implements virtio.Device. There is no configuration (§5.4.4).
func (*Device) ReadConfig(uint64, []byte) {}

// WriteConfig implements virtio.Device.
func (*Device) WriteConfig(uint64, []byte) {}

// Start implements virtio.Device.
func (d *Device) Start(_ uint64, h virtio.Host) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host = h
	if d.timer == nil {
		d.timer = d.Owner.AfterFunc(time.Hour, d.wake)
		d.timer.Stop()
		d.failed = logline.New(d.Log, logPause)
	}
	return nil
}

// Stop implements virtio.Device.
func (d *Device) Stop() {
	d.timer.Stop()
	d.mu.Lock() // a wake under way has ended, or finds no host
	defer d.mu.Unlock()
	d.host = nil
}

// wake runs on the timer's goroutine, when bytes are available again.
func (d *Device) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host != nil {
		d.host.Wake(0)
	}
}

// Serve implements virtio.Device. When the period's share is used up, requests stay
// in the queue until the next period.
func (d *Device) Serve(_ int, q *virtq.Queue) {
	for d.may() {
		c := q.Pop()
		if c == nil {
			return
		}
		n := d.fill(c.Writable)
		d.left -= n
		q.Push(c, uint32(n))
	}
}

// may reports whether there are bytes to give. If not, it sets the timer to call
// Serve again.
func (d *Device) may() bool {
	if d.share == 0 {
		d.left = maxRequest
		return true
	}
	if d.left > 0 {
		return true
	}
	now := time.Now()
	if wait := d.until.Sub(now); wait > 0 {
		d.timer.Reset(wait)
		return false
	}
	d.left, d.until = d.share, now.Add(period)
	return true
}

// fill fills as much of bufs as is allowed, and returns how much.
func (d *Device) fill(bufs [][]byte) (n int) {
	most := min(maxRequest, d.left)
	for _, b := range bufs {
		got, err := io.ReadFull(d.source, b[:min(len(b), most-n)])
		n += got
		if err != nil {
			d.failed.Warn("the guest gets no entropy", "err", err)
			return n
		}
		if n == most {
			return n
		}
	}
	return n
}

// logPause is the minimum time between two log lines about a failing source: a guest
// may ask again at any rate.
const logPause = time.Minute

// Package net is the virtio network device (§5.1).
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package net

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/ethernet"
)

const (
	queueSize        = 256
	controlQueueSize = 64

	// MaxPairs bounds a device's queue pairs. A Linux tap has at most 256 queues.
	MaxPairs = 64
)

// Device is a network card. Queues 2i and 2i+1 receive and transmit for pair i. The
// last queue takes commands.
//
//	network --> Link.Receive --> receiver ----> queue 2i
//	network <-- Link.Send <----- transmitter <- queue 2i+1
//
// Frames to the guest are moved on the goroutine on which the link calls Readable; no
// other goroutine is woken.
type Device struct {
	link    ethernet.Link
	info    ethernet.Info
	mac     ethernet.MAC
	offered uint64
	up      atomic.Bool
	filter  filter
	rx      []*receiver
	tx      []*transmitter

	mu         sync.Mutex
	notice     virtio.Notice // guarded by mu
	mode       ethernet.Mode // guarded by mu; no pairs: not yet set by the driver
	negotiated uint64        // guarded by mu
}

// New returns a card with the given address on a link, which the caller still owns.
func New(link ethernet.Link, mac ethernet.MAC) (*Device, error) {
	d := &Device{link: link, info: link.Info(), mac: mac}
	if d.info.Pairs < 1 || d.info.Pairs > MaxPairs {
		return nil, fmt.Errorf("network device: %d queue pairs: not in 1 to %d", d.info.Pairs, MaxPairs)
	}
	d.offered = features(d.info)
	d.up.Store(true)
	for i := range d.info.Pairs {
		d.rx = append(d.rx, &receiver{d: d, pair: i})
		d.tx = append(d.tx, &transmitter{d: d, pair: i, sent: make([]virtq.Used, 0, sentBatch)})
	}
	d.Reset()
	return d, nil
}

// ID implements virtio.Device.
func (*Device) ID() virtio.ID { return virtio.IDNet }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return d.offered }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	sizes := make([]uint16, 0, 2*d.info.Pairs+1)
	for range 2 * d.info.Pairs {
		sizes = append(sizes, queueSize)
	}
	return append(sizes, controlQueueSize)
}

// Reset implements virtio.Resetter.
func (d *Device) Reset() {
	d.filter.reset(d.mac)
	d.link.Discard()
	for _, r := range d.rx {
		r.reset()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mode = ethernet.Mode{}
	d.notice.Reset()
}

// Start implements virtio.Device.
func (d *Device) Start(features uint64, h virtio.Host) error {
	d.mu.Lock()
	if d.mode.Pairs == 0 {
		d.mode = ethernet.Mode{Pairs: 1, Offload: offload(guestOffloads, features)}
	}
	mode := d.mode
	d.negotiated = features
	d.notice.Start(h)
	d.mu.Unlock()
	for i := range d.rx {
		d.rx[i].start(features, h)
		d.tx[i].start(features)
	}
	if err := d.link.Configure(mode); err != nil {
		return err
	}
	return d.link.Start(guest{d, h})
}

// Stop implements virtio.Device.
func (d *Device) Stop() {
	d.link.Stop()
	for _, r := range d.rx {
		r.stop()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notice.Stop()
}

// guest is what the link sees of d while it is started.
type guest struct {
	*Device
	h virtio.Host
}

// Readable implements Guest.
func (g guest) Readable(pair int) bool { return g.rx[pair].readable() }

// Writable implements Guest.
func (g guest) Writable(pair int) { g.h.Wake(2*pair + 1) }

// Serve implements virtio.Device.
func (d *Device) Serve(queue int, q *virtq.Queue) {
	switch {
	case queue == d.controlQueue():
		d.control(q)
	case queue >= 2*d.info.Pairs: // of a driver without MQ
	case queue%2 == 0:
		d.rx[queue/2].serve(q)
	default:
		d.tx[queue/2].serve(q)
	}
}

// controlQueue returns the index of the control queue. A driver without MQ expects it
// at 2, §5.1.2.
func (d *Device) controlQueue() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.negotiated&featureMultiQueue == 0 {
		return 2
	}
	return 2 * d.info.Pairs
}

// SetUp plugs in the cable, or unplugs it. The driver is told, on resume if it is
// paused. While the cable is unplugged, the card loses all frames both ways.
func (d *Device) SetUp(up bool) {
	if d.up.Swap(up) == up {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notice.Changed()
}

// saved is the state of a card, for a Saver.
type saved struct {
	Filter filterState
	Mode   ethernet.Mode
	Down   bool `json:",omitempty"`
	virtio.Notice
}

// Save implements virtio.Saver.
func (d *Device) Save() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.filter.mu.RLock()
	defer d.filter.mu.RUnlock()
	return json.Marshal(saved{d.filter.s, d.mode, !d.up.Load(), d.notice})
}

// Load implements virtio.Saver.
func (d *Device) Load(b []byte) error {
	var s saved
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("network device: %w", err)
	}
	switch {
	case s.Mode.Pairs < 0 || s.Mode.Pairs > d.info.Pairs:
		return fmt.Errorf("network device: the state uses %d queue pairs, of %d", s.Mode.Pairs, d.info.Pairs)
	case s.Mode.Offload&^d.info.Offload != 0:
		return fmt.Errorf("network device: the state has offloads %#x that the link does not have", s.Mode.Offload&^d.info.Offload)
	case len(s.Filter.Unicast) > maxAddresses || len(s.Filter.Multicast) > maxAddresses:
		return fmt.Errorf("network device: the state has more than %d addresses", maxAddresses)
	}
	d.filter.change(func(f *filterState) { *f = s.Filter })
	d.up.Store(!s.Down)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mode, d.notice.Due = s.Mode, s.Due
	return nil
}

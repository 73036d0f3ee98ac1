// Package blk is the virtio block device (§5.2).
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package blk

import (
	"fmt"
	"log/slog"
	"time"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/logline"
	"vmm/task"
)

// queueSize is the size of each queue, and so the maximum number of its requests in
// flight.
const queueSize = 256

// Workers is how many requests of a device wait for the host at once, unless Config
// says otherwise.
const Workers = 16

// Config describes a device.
type Config struct {
	Serial  string       // serial number that the guest reads, at most 20 bytes
	Queues  int          // one per vCPU is best; 0 means 1
	Workers int          // 0 means Workers
	Owner   task.Owner   // of the workers
	Log     *slog.Logger // says why the guest gets errors; nil discards
}

// Device is a disk. It has no state that a guest can change, so there is nothing to
// save: a driver selects write-through by not negotiating VIRTIO_BLK_F_FLUSH, and
// VIRTIO_BLK_F_CONFIG_WCE is not offered.
//
// What the host can do at once is done on the queue's goroutine. Workers do
// everything else; it completes in any order:
//
//	Serve --- TryReadvAt, TryWritevAt --> answer, batch
//	      \-- jobs --> work ------------> answer, Push
//
// Another way to do I/O (io_uring) would take its requests from jobs instead of work,
// and push them on any goroutine.
type Device struct {
	image   Image
	try     Trier // nil: the image always waits
	serial  [idBytes]byte
	config  [configSize]byte
	offered uint64
	queues  int
	workers int
	batches [][]virtq.Used // one per queue, for the goroutine that serves it
	stats   stats
	failed  *logline.Line // for failures of the host

	// Between Start and Stop.
	features uint64
	jobs     chan request // has room for all requests in flight
	wg       task.Group
}

// New returns a device that presents image to the guest.
func New(image Image, c Config) (*Device, error) {
	d := &Device{image: image, queues: max(c.Queues, 1), workers: c.Workers, wg: task.Group{Owner: c.Owner}, failed: logline.New(c.Log, logPause)}
	if d.workers <= 0 {
		d.workers = Workers
	}
	if len(c.Serial) > idBytes || d.queues > maxQueues {
		return nil, fmt.Errorf("block device: serial number %q, %d queues: at most %d bytes and %d queues", c.Serial, d.queues, idBytes, maxQueues)
	}
	copy(d.serial[:], c.Serial)
	d.try, _ = image.(Trier)
	d.offered = features(image, d.queues)
	d.config = newConfig(image, d.queues)
	for range d.queues {
		d.batches = append(d.batches, make([]virtq.Used, 0, batchRequests))
	}
	return d, nil
}

// ID implements virtio.Device.
func (*Device) ID() virtio.ID { return virtio.IDBlock }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return d.offered }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	sizes := make([]uint16, d.queues)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// Start implements virtio.Device.
func (d *Device) Start(features uint64, _ virtio.Host) error {
	d.features = features
	d.jobs = make(chan request, d.queues*queueSize)
	for range d.workers {
		d.wg.Go(d.work)
	}
	return nil
}

// Stop implements virtio.Device. All chains are pushed, so the workers are idle.
func (d *Device) Stop() {
	close(d.jobs)
	d.wg.Wait()
}

// Serve implements virtio.Device. It never waits for the host: the queue holds no
// more chains than jobs has room for.
//
// What is done at once is given back in batches. Otherwise a guest with several
// requests in flight would be interrupted for each, and kick for each that follows.
func (d *Device) Serve(queue int, q *virtq.Queue) {
	b := batch{q: q, used: d.batches[queue][:0]}
	for c := q.Pop(); c != nil; c = q.Pop() {
		r := request{queue: q, chain: c, began: time.Now()}
		s := d.parse(&r)
		if s == statusOK {
			if s = d.attempt(&r); s == statusLater {
				d.jobs <- r
				continue
			}
		}
		d.stats.done(&r, s)
		b.add(c, answer(&r, s), r.n)
	}
	b.push()
}

// Limits of a batch: the first request in it waits for the last.
const (
	batchRequests = 16
	batchBytes    = 64 << 10
)

// batch holds requests that are done but not given back.
type batch struct {
	q     *virtq.Queue
	used  []virtq.Used
	bytes uint64
}

func (b *batch) add(c *virtq.Chain, n uint32, bytes uint64) {
	b.used = append(b.used, virtq.Used{Chain: c, N: n})
	if b.bytes += bytes; len(b.used) == batchRequests || b.bytes >= batchBytes {
		b.push()
	}
}

func (b *batch) push() {
	b.q.PushAll(b.used)
	b.used, b.bytes = b.used[:0], 0
}

// work does what may take long.
func (d *Device) work() {
	for r := range d.jobs {
		s := d.execute(&r)
		d.stats.done(&r, s)
		r.queue.Push(r.chain, answer(&r, s))
	}
}

// logPause is the minimum time between two log lines about host failures: a guest may
// retry, and restart the device, at any rate.
const logPause = time.Minute

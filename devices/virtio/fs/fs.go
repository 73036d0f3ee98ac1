// Package fs is the virtio file system device (§5.11): a host file system answers a
// guest's FUSE requests.
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
// The requests are those of Linux's <linux/fuse.h>.
package fs

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/logline"
	"vmm/task"
)

// FileSystem is the host's side. Its methods are called on any goroutine, several at
// once, except the last three, which are called alone. Names are what the guest sent:
// only their ends are checked.
type FileSystem interface {
	fuse.RawFileSystem

	// Quick reports whether requests that need no file data are answered at once,
	// without asking another machine over a network.
	Quick() bool

	// Metered reports whether reads and writes may have to wait, or are counted.
	Metered() bool

	// Interrupt makes long calls return early, and waiting calls at once, until
	// Continue.
	Interrupt()
	Continue()

	// ReadInto and WriteFrom are Read and Write with buffers in guest memory: they
	// must not be kept, and written data may change meanwhile. kill: a file that
	// is written to loses its set-user-ID and set-group-ID bits.
	ReadInto(handle uint64, bufs [][]byte, off uint64) (int, fuse.Status)
	WriteFrom(handle uint64, bufs [][]byte, off uint64, kill bool) (int, fuse.Status)

	// TryRead is ReadInto if that need not wait. Otherwise done is false, and the
	// contents of the buffers are undefined.
	TryRead(handle uint64, bufs [][]byte, off uint64) (n int, s fuse.Status, done bool)

	SyncFS() fuse.Status

	Reset() // forget what the guest has: it starts anew
	Save() ([]byte, error)
	Load([]byte) error
}

// queueSize is the size of each queue. A read of 1 MiB into pages of 4 KiB has 259
// descriptors, and Linux asks for no more at once than a queue is long.
const queueSize = 1024

// Workers is how many requests of a device wait for the host at once.
const Workers = 16

// Config describes a device.
type Config struct {
	Tag    string       // the name by which the guest mounts it
	Queues int          // for requests; one per vCPU is best, 0 means 1
	Owner  task.Owner   // of the workers
	Log    *slog.Logger // nil discards
}

// Device is a shared folder.
//
//	Serve --- what is soon done ------> answer, Push
//	      \-- jobs --> work: all else --> answer, Push
//
// Handing a request to a worker and waking that takes four times as long as a name
// lookup (BenchmarkShareRequest in machine). So Serve itself does what the host has
// at hand: names and attributes if the file system is Quick, data in the host's
// cache, small writes.
//
// Requests complete in any order. Those that begin or end a session are done alone:
// they lock session exclusively, all others share it.
type Device struct {
	files  FileSystem
	tag    [tagSize]byte
	queues int
	panics atomic.Uint32
	bugs   *logline.Line

	session sync.RWMutex
	server  *fuse.ProtocolServer // guarded by session
	init    []byte               // guarded by session; the request that began it; nil: none

	// Between Start and Stop.
	jobs chan request // has room for all requests in flight
	wg   task.Group

	// One per goroutine that serves a queue, and one per worker.
	serving, working []*scratch
}

// Bounds of a Config.
const (
	MaxTag    = tagSize
	MaxQueues = 64
)

// New returns a device that presents files to the guest.
func New(files FileSystem, c Config) (*Device, error) {
	d := &Device{files: files, queues: max(c.Queues, 1), wg: task.Group{Owner: c.Owner}, bugs: logline.New(c.Log, logPause)}
	if c.Tag == "" || len(c.Tag) > MaxTag || strings.IndexByte(c.Tag, 0) >= 0 || d.queues > MaxQueues {
		return nil, fmt.Errorf("file system device: tag %q, %d queues: the tag has 1 to %d bytes, and at most %d queues", c.Tag, d.queues, MaxTag, MaxQueues)
	}
	copy(d.tag[:], c.Tag)
	for range 1 + d.queues {
		d.serving = append(d.serving, new(scratch))
	}
	for range Workers {
		d.working = append(d.working, new(scratch))
	}
	d.begin()
	return d, nil
}

// ID implements virtio.Device.
func (*Device) ID() virtio.ID { return virtio.IDFS }

// Features implements virtio.Device. There is no notification queue (§5.11.3); no
// driver has one.
func (*Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device, §5.11.2: the high priority queue, then the
// request queues.
func (d *Device) QueueSizes() []uint16 {
	return slices.Repeat([]uint16{queueSize}, 1+d.queues)
}

// Start implements virtio.Device.
func (d *Device) Start(uint64, virtio.Host) error {
	d.jobs = make(chan request, (1+d.queues)*queueSize)
	for _, w := range d.working {
		d.wg.Go(func() { d.work(w) })
	}
	return nil
}

// Stop implements virtio.Device. All chains are pushed, so the workers are idle. The
// session stays: it ends with a reset.
func (d *Device) Stop() {
	close(d.jobs)
	d.wg.Wait()
}

// Interrupt implements virtio.Interrupter.
func (d *Device) Interrupt() { d.files.Interrupt() }

// Continue implements virtio.Interrupter.
func (d *Device) Continue() { d.files.Continue() }

// Serve implements virtio.Device. The queues hold no more chains than jobs has
// room for.
func (d *Device) Serve(queue int, q *virtq.Queue) {
	w := d.serving[queue]
	for c := q.Pop(); c != nil; c = q.Pop() {
		r := request{queue: q, chain: c}
		n, done := d.parse(&r)
		if !done {
			n, done = d.attempt(&r, w)
		}
		if !done {
			d.jobs <- r
			continue
		}
		q.Push(c, n)
	}
}

// work does what may take long.
func (d *Device) work(w *scratch) {
	for r := range d.jobs {
		n := d.execute(&r, w)
		r.queue.Push(r.chain, n)
	}
}

// Panics returns how many requests have hit a bug. No guest should be able to raise
// it above 0.
func (d *Device) Panics() int { return int(d.panics.Load()) }

// logPause is the minimum time between two log lines about bugs: a guest could repeat
// a request that hits one.
const logPause = time.Minute

// panicked turns a bug into an error of the request that hit it.
func (d *Device) panicked(what any) fuse.Status {
	d.panics.Add(1)
	d.bugs.Error("internal error: a file system request", "panic", what)
	return fuse.EIO
}

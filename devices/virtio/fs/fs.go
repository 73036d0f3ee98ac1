// Package fs is the virtio file system device (§5.11): a guest's FUSE requests,
// answered by a file system of the host's.
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

// FileSystem is the host's side. Its methods are called on any goroutine, several
// at once, but for the last three, which are called alone. Names are what the
// guest sent: not checked but for their ends.
type FileSystem interface {
	fuse.RawFileSystem

	// Quick says that what needs no data of a file is answered at once: nobody
	// is asked for it over a network.
	Quick() bool

	// Metered says that what is read and written may have to wait, or be counted.
	Metered() bool

	// Interrupt has calls that take long return early, and those that wait at once,
	// until Continue.
	Interrupt()
	Continue()

	// ReadInto and WriteFrom are Read and Write with buffers that are guest memory:
	// nothing of them may be kept, and what was written may change meanwhile. kill:
	// a program that is written to loses what gives it rights.
	ReadInto(handle uint64, bufs [][]byte, off uint64) (int, fuse.Status)
	WriteFrom(handle uint64, bufs [][]byte, off uint64, kill bool) (int, fuse.Status)

	// TryRead is ReadInto if that need not wait; else done is false, and the
	// buffers hold anything.
	TryRead(handle uint64, bufs [][]byte, off uint64) (n int, s fuse.Status, done bool)

	SyncFS() fuse.Status

	Reset() // forget what the guest has: it starts anew
	Save() ([]byte, error)
	Load([]byte) error
}

// queueSize is the size of each queue. A read of 1 MiB into pages of 4 KiB has
// 259 descriptors, and Linux asks for no more at once than a queue is long.
const queueSize = 1024

// Workers is how many requests of a device are with the host at once.
const Workers = 16

// Config says what kind of device it is.
type Config struct {
	Tag    string       // by which the guest mounts it
	Queues int          // for requests; one a vCPU is best, 0 is 1
	Owner  task.Owner   // of the workers
	Log    *slog.Logger // nil discards
}

// Device is a shared folder.
//
//	Serve --- what is soon done ------> answer, Push
//	      \-- jobs --> work: all else --> answer, Push
//
// A hand-over to a worker and its waking take four times as long as a name is
// looked up (BenchmarkShareRequest in machine). So Serve itself does what the host
// has at hand: names and attributes where the file system is Quick, data that is
// in the host's cache, small writes.
//
// Requests complete in any order. Those that begin or end a session are done
// alone: the session is locked for them, and shared for all others.
type Device struct {
	files  FileSystem
	tag    [tagSize]byte
	queues int
	panics atomic.Uint32
	bugs   *logline.Line

	session sync.RWMutex
	server  *fuse.ProtocolServer // guarded by session
	init    []byte               // guarded by session; the request that began it, nil: none has

	// Between Start and Stop.
	jobs chan request // has room for all that can be in flight
	wg   task.Group

	// One a goroutine that serves a queue, and one a worker.
	serving, working []*scratch
}

// Bounds of a Config.
const (
	MaxTag    = tagSize
	MaxQueues = 64
)

// New returns a device that shows files to the guest.
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

// Features implements virtio.Device: there is no queue for notifications
// (§5.11.3), which no driver has.
func (*Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device, §5.11.2: what must not wait, then requests.
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

// Stop implements virtio.Device. All chains are pushed, so the workers idle. The
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

// Panics returns how many requests have met a bug; 0 is what a guest can bring
// about.
func (d *Device) Panics() int { return int(d.panics.Load()) }

// logPause is between two lines about bugs: a guest could send what meets one again
// and again.
const logPause = time.Minute

// panicked turns a bug into an error of the request that met it.
func (d *Device) panicked(what any) fuse.Status {
	d.panics.Add(1)
	d.bugs.Error("internal error: a file system request", "panic", what)
	return fuse.EIO
}

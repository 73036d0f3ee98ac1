// Package vsock is the virtio socket device (§5.10): streams between guest programs
// and host programs.
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package vsock

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/stream"
	"vmm/task"
)

// Queues, §5.10.2.
const (
	queueReceive = iota
	queueTransmit
	queueEvent
)

const (
	queueSize      = 256
	eventQueueSize = 16

	// featureStream is VIRTIO_VSOCK_F_STREAM, §5.10.3. Streams are the default
	// without it, too.
	featureStream = 1 << 0

	// configSize is the size of struct virtio_vsock_config, §5.10.4.
	configSize = 8
)

// How much a guest can make us hold. With all connections stalled that is 76 MiB.
const (
	// MaxConns bounds connections, including those that only wait for the host to
	// take their last bytes.
	MaxConns = 1024
	// The first largeConns connections may have largeBuffer bytes under way to a host
	// that does not read, the others smallBuffer.
	largeConns  = 64
	largeBuffer = 256 << 10
	smallBuffer = 64 << 10
	// maxReplies is how many resets of unknown connections may wait for guest
	// buffers. Once there are that many, the transmit queue waits, §5.10.6.1.
	maxReplies = queueSize
)

const (
	// requestLimit is how long the guest may take to answer a call.
	requestLimit = 10 * time.Second
	// closeLimit is how long it may take to confirm the end of a connection. Then the
	// connection is reset. Linux waits as long.
	closeLimit = 8 * time.Second
)

// firstPort is the first port number for host callers. These are above the ports of
// services.
const firstPort = 1 << 30

// key is the pair of ports of a connection.
type key struct{ host, guest uint32 }

// Device is a socket device.
//
//	guest --> queue 1 --> packet --> Conn.Write, or backlog
//	guest <-- queue 0 <-- turn   <-- Conn.Read
//
// Each goroutine that brings news (the queues', the host's) takes the lock and moves
// what it can, without waiting. Only the kernel copies bytes, between its socket and
// the guest's buffers, except those that the host has no room for.
type Device struct {
	Owner task.Owner // of its timers; set before the first one starts

	cid  uint64
	host stream.Host
	sent []virtq.Used // of the transmit queue's goroutine

	mu     sync.Mutex
	guest  virtio.Host   // guarded by mu, as is all below; nil: stopped
	driven bool          // a driver is running, though perhaps paused
	ran    time.Duration // the guest's time up to since
	since  time.Time     // when it was started
	rx     *virtq.Queue  // nil: not served
	events *virtq.Queue  // nil: not served
	conns  map[key]*conn // those that the guest knows
	count  int           // of conns, and of connections that only drain
	port   uint32        // of the last call
	ready  list          // those that have something for the guest
	again  bool          // the transmit queue waits for room in replies
	lost   bool          // the driver must be told of a restore, §5.10.6.7
	reply  replies

	held []held       // of one turn
	bufs [][]byte     // for one read or write
	used []virtq.Used // not pushed yet
}

// New returns a device whose guest has the given address, from MinCID to MaxCID. The
// caller still owns the host.
func New(cid uint32, host stream.Host) *Device {
	d := &Device{cid: uint64(cid), host: host, sent: make([]virtq.Used, 0, sentBatch), conns: map[key]*conn{}, port: firstPort - 1}
	host.Serve(d)
	return d
}

// ID implements virtio.Device.
func (*Device) ID() virtio.ID { return virtio.IDSocket }

// Features implements virtio.Device.
func (*Device) Features() uint64 { return featureStream }

// QueueSizes implements virtio.Device.
func (*Device) QueueSizes() []uint16 { return []uint16{queueSize, queueSize, eventQueueSize} }

// ReadConfig implements virtio.Device. The configuration is the guest's CID.
func (d *Device) ReadConfig(off uint64, p []byte) {
	var c [configSize]byte
	le.PutUint64(c[:], d.cid)
	if off < configSize {
		copy(p, c[off:])
	}
}

// WriteConfig implements virtio.Device.
func (*Device) WriteConfig(uint64, []byte) {}

// Start implements virtio.Device.
func (d *Device) Start(_ uint64, h virtio.Host) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guest, d.driven, d.since = h, true, time.Now()
	return nil
}

// Stop implements virtio.Device. Connections stay: they continue after a pause.
func (d *Device) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ran = d.time()
	d.guest, d.rx, d.events, d.again = nil, nil, nil, false
}

// Reset implements virtio.Resetter: the driver has forgotten all connections.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forgetAll()
	d.driven, d.lost = false, false
}

func (d *Device) forgetAll() {
	for _, c := range d.conns {
		d.closeHost(c)
		d.forget(c)
	}
	d.ready, d.reply = list{}, replies{}
}

// Serve implements virtio.Device.
func (d *Device) Serve(queue int, q *virtq.Queue) {
	switch queue {
	case queueReceive:
		d.receive(q)
	case queueTransmit:
		d.transmit(q)
	case queueEvent:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.events = q
		d.tellLost()
		q.Check()
	}
}

// tellLost tells the driver that its connections are lost, §5.10.6.7, as soon as
// it has a buffer for that.
func (d *Device) tellLost() {
	for d.lost && d.events != nil {
		c := d.events.Pop()
		if c == nil {
			return
		}
		n := 0
		if c.WritableLen() >= 4 {
			n = c.Write([]byte{0, 0, 0, 0}) // VIRTIO_VSOCK_EVENT_TRANSPORT_RESET
			d.lost = false
		}
		d.events.Push(c, uint32(n))
	}
}

// saved is the state of a device, for a Saver. Connections cannot be saved: their
// other ends are processes.
type saved struct{ Lost bool }

// Save implements virtio.Saver.
func (*Device) Save() ([]byte, error) { return json.Marshal(saved{Lost: true}) }

// Load implements virtio.Saver.
func (d *Device) Load(b []byte) error {
	var s saved
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("socket device: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lost = s.Lost
	return nil
}

// Conns returns how many connections there are.
func (d *Device) Conns() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

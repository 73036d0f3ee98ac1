// Package vsock is the virtio socket device (§5.10): streams between programs of
// the guest and of the host.
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

	// featureStream is VIRTIO_VSOCK_F_STREAM, §5.10.3: what is meant without it, too.
	featureStream = 1 << 0

	// configSize is that of struct virtio_vsock_config, §5.10.4.
	configSize = 8
)

// What a guest can have us hold. With all connections stalled that is 76 MiB.
const (
	// MaxConns bounds connections, those included that only wait for the host to
	// take their last bytes.
	MaxConns = 1024
	// The first connections may have largeBuffer bytes under way to a host that
	// does not read, the others smallBuffer.
	largeConns  = 64
	largeBuffer = 256 << 10
	smallBuffer = 64 << 10
	// maxReplies are resets of what is no connection that wait for the guest's
	// buffers. With so many the transmit queue waits, §5.10.6.1.
	maxReplies = queueSize
)

const (
	// requestLimit is how long the guest may take to answer a call.
	requestLimit = 10 * time.Second
	// closeLimit is how long it may take to confirm the end of a connection,
	// after which it is reset: as long as Linux waits.
	closeLimit = 8 * time.Second
)

// firstPort is the first of the numbers that stand for callers of the host. They
// are above those that services have.
const firstPort = 1 << 30

// key is the two ports of a connection.
type key struct{ host, guest uint32 }

// Device is a socket device.
//
//	guest --> queue 1 --> packet --> Conn.Write, or backlog
//	guest <-- queue 0 <-- turn   <-- Conn.Read
//
// Whoever brings news (the queues' goroutines, the host's) takes the lock and
// moves what can be moved, without waiting for anybody. Bytes are copied by the
// kernel only, between its socket and the guest's buffers, but for those for
// which the host has no room.
type Device struct {
	Owner task.Owner // of its timers; set before the first

	cid  uint64
	host stream.Host
	sent []virtq.Used // of the transmit queue's goroutine

	mu     sync.Mutex
	guest  virtio.Host   // guarded by mu, as is all below; nil: stopped
	driven bool          // a driver is there, though perhaps paused
	ran    time.Duration // the guest's time up to since
	since  time.Time     // when it was started
	rx     *virtq.Queue  // nil: none is served
	events *virtq.Queue  // likewise
	conns  map[key]*conn // what the guest knows
	count  int           // of them, and of those that only drain
	port   uint32        // of the last call
	ready  list          // have something for the guest
	again  bool          // the transmit queue waits for room in replies
	lost   bool          // the driver is to be told of a restore, §5.10.6.7
	reply  replies

	held []held       // of one turn
	bufs [][]byte     // for one read or write
	used []virtq.Used // not pushed yet
}

// New returns a device whose guest has the given address, from MinCID to MaxCID.
// The host stays the caller's.
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

// ReadConfig implements virtio.Device: there is the guest's CID.
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

// Stop implements virtio.Device. Connections stay: they go on after a pause.
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

// Package console is the virtio console device (§5.3): either a terminal for the
// guest that knows its size, or a number of named ports, which are byte streams
// between a guest program and a host program.
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
package console

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/task"
)

// Feature bits, §5.3.3.
const (
	featureSize      = 1 << 0 // VIRTIO_CONSOLE_F_SIZE
	featureMultiport = 1 << 1 // VIRTIO_CONSOLE_F_MULTIPORT
	featureEmergency = 1 << 2 // VIRTIO_CONSOLE_F_EMERG_WRITE
)

// The configuration, struct virtio_console_config, §5.3.4.
const (
	configCols      = 0
	configRows      = 2
	configPorts     = 4
	configEmergency = 8
	configSize      = 12
)

// Queues, §5.3.2: those of port 0, then those for control messages, then those of the
// other ports.
const (
	queueControlIn  = 2 // to the driver
	queueControlOut = 3
	queueSize       = 64
)

// MaxPorts bounds the ports of a device, and so its queues.
const MaxPorts = 16

// MaxName bounds the length of a port's name.
const MaxName = 64

var le = binary.LittleEndian

// Stream is the host's end of a port.
type Stream struct {
	Name string    // used by NewPorts
	In   io.Reader // what the guest reads; nil is no input
	Out  io.Writer // what the guest writes; nil drops it. A Write may block

	// Await holds back input, and the terminal size, until the guest has written
	// something, if there are no control messages to announce the driver. Linux
	// throws away what comes while its driver starts.
	Await bool
}

// Device is a console.
//
//	Stream.In  --> port.receive --> input  --> queue 2i+2  (0 of port 0)
//	Stream.Out <-- port.send <----- output <-- queue 2i+3  (1 of port 0)
//
// A terminal and named ports are two kinds of device, although §5.3 allows both in
// one. A terminal with control messages gets its size in one of those, where Linux
// swapped rows and columns until 6.15. In the configuration all drivers read it
// alike.
type Device struct {
	Owner task.Owner // of its goroutines; set before the first one starts

	ports   []*port
	offered uint64

	mu         sync.Mutex
	host       virtio.Host // guarded by mu; nil: stopped
	negotiated uint64      // guarded by mu
	cols, rows uint16      // guarded by mu
	ready      bool        // guarded by mu; DEVICE_READY was received
}

// NewTerminal returns a terminal. Linux calls it hvc0.
func NewTerminal(s Stream) *Device { return newDevice(featureSize|featureEmergency, s) }

// NewPorts returns a device with ports. Linux shows them by name in
// /dev/virtio-ports/.
func NewPorts(list ...Stream) (*Device, error) {
	if len(list) < 1 || len(list) > MaxPorts {
		return nil, fmt.Errorf("console device: %d ports: not in 1 to %d", len(list), MaxPorts)
	}
	return newDevice(featureMultiport, list...), nil
}

func newDevice(offered uint64, list ...Stream) *Device {
	d := &Device{offered: offered}
	for i, s := range list {
		d.ports = append(d.ports, newPort(d, i, s))
	}
	return d
}

// ID implements virtio.Device.
func (*Device) ID() virtio.ID { return virtio.IDConsole }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return d.offered }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	n := 2
	if d.offered&featureMultiport != 0 {
		n = 2 + 2*len(d.ports)
	}
	sizes := make([]uint16, n)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	var c [configSize]byte
	d.mu.Lock()
	le.PutUint16(c[configCols:], d.cols)
	le.PutUint16(c[configRows:], d.rows)
	d.mu.Unlock()
	le.PutUint32(c[configPorts:], uint32(len(d.ports)))
	if off < configSize {
		copy(p, c[off:])
	}
}

// WriteConfig implements virtio.Device. A write to emerg_wr prints its lowest byte,
// whatever the state of the device (§5.3.5.1).
func (d *Device) WriteConfig(off uint64, p []byte) {
	if d.offered&featureEmergency != 0 && off <= configEmergency && configEmergency-off < uint64(len(p)) {
		d.ports[0].print(p[configEmergency-off])
	}
}

// Start implements virtio.Device.
func (d *Device) Start(features uint64, h virtio.Host) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host, d.negotiated = h, features
	for _, p := range d.ports {
		p.start(h, features)
	}
	return nil
}

// multiport reports whether control messages are in use. The caller holds mu.
func (d *Device) multiport() bool { return d.negotiated&featureMultiport != 0 }

// Stop implements virtio.Device.
func (d *Device) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host = nil
	for _, p := range d.ports {
		p.stop()
	}
}

// Reset implements virtio.Resetter.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready, d.negotiated = false, 0
	for _, p := range d.ports {
		p.control = control{}
		p.reset()
	}
}

// Serve implements virtio.Device.
func (d *Device) Serve(queue int, q *virtq.Queue) {
	i := queue / 2
	switch {
	case queue == queueControlIn:
		d.tell(q)
		return
	case queue == queueControlOut:
		d.listen(q)
		return
	case queue > queueControlOut:
		i--
	}
	if queue%2 == 0 {
		d.ports[i].receiveQueue(q)
	} else {
		d.ports[i].transmitQueue(q)
	}
}

// SetSize sets the size of the terminal, in characters; 0 means unknown. The driver
// is told of a change; a paused one after it resumes.
func (d *Device) SetSize(cols, rows uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cols == cols && d.rows == rows {
		return
	}
	d.cols, d.rows = cols, rows
	d.ports[0].resized()
}

// Type gives the guest one more byte, after everything read from the terminal's
// stream.
func (d *Device) Type(v byte) { d.ports[0].insert(v) }

// Close delivers what the guest has printed, unless ctx is done first. The device
// must be stopped; what it prints from now on is dropped.
func (d *Device) Close(ctx context.Context) error {
	var errs []error
	for _, p := range d.ports {
		errs = append(errs, p.close(ctx))
	}
	return errors.Join(errs...)
}

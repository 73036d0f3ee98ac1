package console

import "vmm/devices/virtio/virtq"

// Events of control messages, §5.3.6.2.
const (
	eventDeviceReady = 0 // VIRTIO_CONSOLE_DEVICE_READY
	eventDeviceAdd   = 1 // VIRTIO_CONSOLE_DEVICE_ADD, of a port
	eventPortReady   = 3 // VIRTIO_CONSOLE_PORT_READY
	eventPortOpen    = 6 // VIRTIO_CONSOLE_PORT_OPEN
	eventPortName    = 7 // VIRTIO_CONSOLE_PORT_NAME
)

// messageSize is the size of struct virtio_console_control. A name follows it.
const messageSize = 8

// control is the current state of the messages about a port.
//
// Messages for the driver are kept as bits and not as a list: however often the
// host's end or the guest changes its mind, there are at most three messages per
// port.
type control struct {
	Added   bool    `json:",omitempty"` // the driver knows the port
	Ready   bool    `json:",omitempty"` // and has set it up
	Pending pending `json:",omitempty"`
}

// pending is a set of messages that the driver has no buffer for yet, in sending
// order.
type pending uint8

const (
	pendingAdd pending = 1 << iota
	pendingName
	pendingOpen
	pendingAll = pendingAdd | pendingName | pendingOpen
)

// listen carries out the driver's messages.
func (d *Device) listen(q *virtq.Queue) {
	for c := q.Pop(); c != nil; c = q.Pop() {
		var m [messageSize]byte
		if c.ReadFull(m[:]) {
			d.obey(le.Uint32(m[:]), le.Uint16(m[4:]), le.Uint16(m[6:]))
		}
		q.Push(c, 0)
	}
}

// obey does what a message says. A message that is invalid, or comes out of order, is
// ignored.
func (d *Device) obey(id uint32, event, value uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.multiport() {
		return
	}
	if event == eventDeviceReady {
		if value == 1 && !d.ready {
			d.ready = true
			for _, p := range d.ports {
				d.say(p, pendingAdd)
			}
		}
		return
	}
	if uint64(id) >= uint64(len(d.ports)) || !d.ports[id].control.Added {
		return
	}
	p := d.ports[id]
	switch event {
	case eventPortReady:
		if value == 1 && !p.control.Ready {
			p.control.Ready = true
			d.say(p, pendingName|pendingOpen)
		}
	case eventPortOpen:
		p.setOpen(value == 1)
	}
}

// say queues messages for the driver. The caller holds mu.
func (d *Device) say(p *port, what pending) {
	p.control.Pending |= what
	if d.host != nil {
		d.host.Wake(queueControlIn)
	}
}

// tell sends the messages that are due, as far as the driver has buffers.
func (d *Device) tell(q *virtq.Queue) {
	var b [messageSize + MaxName]byte
	for d.due() {
		c := q.Pop()
		if c == nil {
			return
		}
		n := 0
		if m := d.message(b[:0], c.WritableLen()); m != nil {
			n = c.Write(m)
		}
		q.Push(c, uint32(n))
	}
}

// due reports whether there is a message for the driver.
func (d *Device) due() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.ports {
		if d.multiport() && p.control.Pending != 0 {
			return true
		}
	}
	return false
}

// message appends the next message that is due to b, if it fits into room, and marks
// it as sent.
func (d *Device) message(b []byte, room uint64) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, p := range d.ports {
		c := &p.control
		bit := c.Pending & -c.Pending
		event, value, name := uint16(eventDeviceAdd), uint16(0), ""
		switch bit {
		case 0:
			continue
		case pendingName:
			event, name = eventPortName, p.stream.Name
		case pendingOpen:
			event = eventPortOpen
			if p.connected() {
				value = 1
			}
		}
		if uint64(messageSize+len(name)) > room {
			return nil
		}
		c.Pending &^= bit
		c.Added = c.Added || bit == pendingAdd
		b = le.AppendUint16(le.AppendUint16(le.AppendUint32(b, uint32(i)), event), value)
		return append(b, name...)
	}
	return nil
}

// SetConnected says whether the host's end of a port is connected; initially it is. A
// program in the guest notices: while the port is not connected, its reads end and
// its writes wait.
func (d *Device) SetConnected(port int, connected bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.ports[port]; p.connect(connected) && p.control.Ready {
		d.say(p, pendingOpen)
	}
}

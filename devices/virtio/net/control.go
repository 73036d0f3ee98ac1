package net

import (
	"vmm/devices/virtio/virtq"
	"vmm/ethernet"
)

// Classes and commands, §5.1.6.5.
const (
	classRX            = 0 // VIRTIO_NET_CTRL_RX
	rxPromiscuous      = 0
	rxAllMulticast     = 1
	rxAllUnicast       = 2
	rxNoMulticast      = 3
	rxNoUnicast        = 4
	rxNoBroadcast      = 5
	classMAC           = 1 // VIRTIO_NET_CTRL_MAC
	macTableSet        = 0
	macAddressSet      = 1
	classPairs         = 4 // VIRTIO_NET_CTRL_MQ
	pairsSet           = 0
	classGuestOffloads = 5 // VIRTIO_NET_CTRL_GUEST_OFFLOADS
	guestOffloadsSet   = 0

	ackOK  = 0 // VIRTIO_NET_OK
	ackErr = 1 // VIRTIO_NET_ERR
)

// maxCommand bounds a command: two tables of about a thousand addresses. A longer
// command is refused.
const maxCommand = 2 + 2*(4+1024*6)

// control carries out the driver's commands.
func (d *Device) control(q *virtq.Queue) {
	for c := q.Pop(); c != nil; c = q.Pop() {
		ack := c.CutLast(1)
		if ack == nil {
			q.Push(c, 0)
			continue
		}
		ack[0][0] = ackErr
		if n := c.ReadableLen(); n >= 2 && n <= maxCommand {
			command := make([]byte, n)
			if c.Read(command); d.obey(command[0], command[1], command[2:]) {
				ack[0][0] = ackOK
			}
		}
		// All bytes before the last count as written (§2.7.8.2), but a command has
		// none there.
		n := uint32(0)
		if c.WritableLen() == 0 {
			n = 1
		}
		q.Push(c, n)
	}
}

// obey reports whether a command was valid and was carried out.
func (d *Device) obey(class, command byte, data []byte) bool {
	d.mu.Lock()
	negotiated := d.negotiated
	d.mu.Unlock()
	has := func(bit uint64) bool { return negotiated&bit != 0 }
	switch {
	case class == classRX && command <= rxAllMulticast && has(featureControlRX), class == classRX && has(featureControlRXMore):
		return d.setReceiveMode(command, data)
	case class == classMAC && command == macTableSet && has(featureControlRX):
		return d.setTables(data)
	case class == classMAC && command == macAddressSet && has(featureControlMAC) && len(data) == len(ethernet.MAC{}):
		d.filter.change(func(s *filterState) { s.MAC = ethernet.MAC(data) })
		return true
	case class == classPairs && command == pairsSet && has(featureMultiQueue) && len(data) == 2:
		n := int(le.Uint16(data))
		return n >= 1 && n <= d.info.Pairs && d.setMode(func(m *ethernet.Mode) { m.Pairs = n })
	case class == classGuestOffloads && command == guestOffloadsSet && has(featureGuestOffloads) && len(data) == 8:
		bits := le.Uint64(data)
		return bits&^negotiated == 0 && d.setMode(func(m *ethernet.Mode) { m.Offload = offload(guestOffloads, bits) })
	}
	return false
}

// setMode changes the mode. If the link refuses the new mode, the old one stays.
func (d *Device) setMode(change func(*ethernet.Mode)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.mode
	change(&m)
	if d.link.Configure(m) != nil {
		return false
	}
	d.mode = m
	return true
}

// setReceiveMode carries out a command of class RX, §5.1.6.5.1.
func (d *Device) setReceiveMode(command byte, data []byte) bool {
	if len(data) != 1 {
		return false
	}
	on, known := data[0] != 0, true
	d.filter.change(func(s *filterState) {
		switch command {
		case rxPromiscuous:
			s.Promiscuous = on
		case rxAllMulticast:
			s.AllMulticast = on
		case rxAllUnicast:
			s.AllUnicast = on
		case rxNoMulticast:
			s.NoMulticast = on
		case rxNoUnicast:
			s.NoUnicast = on
		case rxNoBroadcast:
			s.NoBroadcast = on
		default:
			known = false
		}
	})
	return known
}

// setTables replaces the addresses whose frames the guest wants, §5.1.6.5.2.
func (d *Device) setTables(data []byte) bool {
	unicast, data, ok := table(data)
	if !ok {
		return false
	}
	multicast, _, ok := table(data)
	if !ok {
		return false
	}
	d.filter.change(func(s *filterState) { s.setTables(unicast, multicast) })
	return true
}

// table returns the first table of data, a struct virtio_net_ctrl_mac, and what
// follows it.
func table(data []byte) (list []ethernet.MAC, rest []byte, ok bool) {
	if len(data) < 4 {
		return nil, nil, false
	}
	n, data := uint64(le.Uint32(data)), data[4:]
	if n*uint64(len(ethernet.MAC{})) > uint64(len(data)) {
		return nil, nil, false
	}
	for ; n > 0; n-- {
		list, data = append(list, ethernet.MAC(data)), data[len(ethernet.MAC{}):]
	}
	return list, data, true
}

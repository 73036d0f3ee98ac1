package attack

import (
	"encoding/binary"
	"fmt"
	"time"
)

func (k *nic) groups(d *driver) []group {
	return []group{
		{"frame-lengths", k.lengthTests(d)},
		{"frame-places", k.placeTests(d)},
		{"frame-headers", k.headerTests(d)},
		{"frames", k.frameTests(d)},
		{"receive", k.receiveTests(d)},
		{"control", k.controlTests(d)},
	}
}

// lengthTests send frames of odd lengths and in odd pieces.
func (*nic) lengthTests(d *driver) []test {
	header := func(d *driver) buf { return readable(d.mem.phys+atHeader, headerLen) }
	all := []shape{
		{"a header of 11", succeeds, func(d *driver) []buf { return []buf{readable(d.mem.phys+atHeader, headerLen-1)} }},
		{"a header of 1", succeeds, func(d *driver) []buf { return []buf{readable(d.mem.phys+atHeader, 1)} }},
		{"a header alone", succeeds, func(d *driver) []buf { return []buf{header(d)} }},
		{"nothing", handled, func(d *driver) []buf { return []buf{readable(1<<63, 0)} }},
		{"a header to be written", handled, func(d *driver) []buf { return []buf{writable(d.mem.phys+atHeader, headerLen), d.data(60)} }},
		{"room behind the frame", handled, func(d *driver) []buf { return []buf{header(d), d.data(60), d.room(1 << 20)} }},
		{"room alone", handled, func(d *driver) []buf { return []buf{d.room(1 << 20)} }},
		{"in pieces of one byte", succeeds, func(d *driver) []buf { return pieces(d.data(headerLen+100), ones(headerLen+100)...) }},
		{"in 126 pieces of 520 bytes", handled, func(d *driver) []buf {
			bufs := []buf{header(d)}
			for range 126 {
				bufs = append(bufs, d.data(520))
			}
			return bufs
		}},
		{"three times 4 GiB", handled, func(d *driver) []buf {
			long := readable(d.ramEnd-4096, 1<<32-1)
			return []buf{header(d), long, long, long}
		}},
	}
	for _, n := range []uint32{1, 13, 14, 15, 59, 60, 1514, 1515, 4096, 65535, 65536, 65549, 65550, 65551, 66000, dataLen, 1 << 31, 1<<32 - 1} {
		all = append(all, shape{fmt.Sprintf("%d bytes", n), handled, func(d *driver) []buf {
			if n > dataLen {
				return []buf{header(d), readable(d.ramEnd-4096, n)}
			}
			return []buf{header(d), d.data(n)}
		}})
	}
	return each(func(packed bool) []test { return shapeOf(options{packed: packed, size: 128}, all) })
}

// placeTests put a frame, or room for one, where there is no RAM.
func (k *nic) placeTests(d *driver) []test {
	return each(func(packed bool) (tests []test) {
		for _, p := range d.places() {
			o := options{packed: packed, with: featIndirect}
			for _, s := range []shape{
				{"header", refused, func(d *driver) []buf { return []buf{readable(p.forBuffer(headerLen), headerLen), d.data(60)} }},
				{"frame", refused, func(d *driver) []buf { return []buf{d.header(0, 0), readable(p.forBuffer(60), 60)} }},
				{"table", refused, func(d *driver) []buf { return []buf{{p.forBuffer(32), 32, descIndirect}} }},
			} {
				s.name += " at " + p.name
				tests = append(tests, s.test(o))
			}
			tests = append(tests, test{format(packed) + "/room at " + p.name, o, false, func(d *driver) error {
				return k.receiveInto(d, handled, writable(p.forBuffer(receiveLen), receiveLen))
			}})
		}
		return tests
	})
}

// headerTests set the header fields to harmful values, before a good segment, with the
// offloads negotiated and not.
func (*nic) headerTests(d *driver) (tests []test) {
	values := []uint64{0, 1, 2, 3, 4, 5, 13, 14, 20, 34, 54, 0x7f, 0x80, 0x81, 0xff, 0x5a8, 0x7fff, 0x8000, 0xfffe, 0xffff}
	for _, with := range []uint64{0, featHostOffloads & d.port.offered()} {
		for _, field := range []struct {
			name string
			at   int
			wide bool
		}{{"flags", 0, false}, {"gso_type", 1, false}, {"hdr_len", 2, true}, {"gso_size", 4, true}, {"csum_start", 6, true}, {"csum_offset", 8, true}, {"num_buffers", 10, true}} {
			tests = append(tests, test{fmt.Sprintf("%s, features %#x", field.name, with), options{with: with}, false, func(d *driver) error {
				for i, v := range values {
					for _, base := range [][headerLen]byte{{}, {1, 1, 54, 0, 0xa8, 5, 34, 0, 16}, {1, 4, 74, 0, 0x94, 5, 54, 0, 16}} {
						h := base
						if field.wide {
							le.PutUint16(h[field.at:], uint16(v))
						} else {
							h[field.at] = byte(v)
						}
						if err := d.sendWith(h[:], segmentFrame(3000)); err != nil {
							return fmt.Errorf("value %d: %w", i, err)
						}
					}
				}
				return nil
			}})
		}
	}
	for i := range 10 {
		tests = append(tests, test{fmt.Sprintf("at random %d", i), options{with: featHostOffloads & d.port.offered()}, false, func(d *driver) error {
			for range 100 {
				var h [headerLen]byte
				le.PutUint64(h[:], d.rand.Uint64())
				h[0], h[1] = h[0]&3, []byte{0, 1, 3, 4, 5, 0x80, 0x81}[d.rand.IntN(7)]
				if err := d.sendWith(h[:], segmentFrame(54+d.rand.IntN(3000))); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	return tests
}

// sendWith sends a frame after a header, and waits until the buffers come back.
func (d *driver) sendWith(header, frame []byte) error {
	n := d.ring.used() + 1
	bufs := frameBufs(d, frame)
	copy(d.mem.region[bufs[0].addr-d.mem.phys:], header)
	d.ring.add(bufs...)
	d.kick()
	return d.judge(succeeds, n)
}

// segmentFrame returns a TCP segment to the gateway, in a frame of n bytes.
func segmentFrame(n int) []byte {
	f := make([]byte, max(n, 54))
	copy(f, broadcast)
	copy(f[6:], ourMAC)
	copy(f[12:], []byte{8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2})
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
	copy(f[34:], []byte{0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0})
	return f
}

// frameTests send frames of several protocols, with some bytes changed.
func (k *nic) frameTests(d *driver) (tests []test) {
	heads := []struct {
		name string
		f    []byte
	}{
		{"ARP", k.arp()},
		{"TCP", segmentFrame(80)},
		{"UDP", []byte{8, 0, 0x45, 0, 0, 60, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 3, 0x9c, 0x40, 0, 53, 0, 40, 0, 0}},
		{"DHCP", []byte{8, 0, 0x45, 0, 1, 0x48, 0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67, 1, 0x34, 0, 0, 1, 1, 6, 0}},
		{"ICMP", []byte{8, 0, 0x45, 0, 0, 60, 0, 1, 0, 0, 64, 1, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2, 8, 0, 0, 0}},
		{"a fragment", []byte{8, 0, 0x45, 0, 0, 60, 0, 1, 0x3f, 0xff, 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2, 8, 0, 0, 0}},
		{"IPv6", []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, 58, 255, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 133, 0, 0, 0}},
		{"a VLAN", []byte{0x81, 0, 0, 5, 8, 0, 0x45, 0}},
	}
	for _, h := range heads {
		f := h.f
		if f[0] != 0xff {
			f = append(append(append([]byte(nil), broadcast...), ourMAC...), f...)
		}
		tests = append(tests, test{h.name, options{with: featHostOffloads & d.port.offered()}, false, func(d *driver) error {
			for i := range 150 {
				g := append(append([]byte(nil), f...), make([]byte, d.rand.IntN(300))...)
				for range i % 8 {
					g[12+d.rand.IntN(len(g)-12)] = byte(d.rand.Uint32())
				}
				var header [headerLen]byte
				if err := d.sendWith(header[:], g[:max(1, len(g)-d.rand.IntN(len(g))*(i%2))]); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	return tests
}

// receiveInto makes an answer arrive with only the given room.
func (k *nic) receiveInto(d *driver, w want, room ...buf) error {
	if err := d.prepare(d.opt); err != nil {
		return err
	}
	k.place(d)
	d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
	k.received.add(room...)
	d.port.notify(receiveQueue)
	for range 3 {
		d.ring.add(k.request(d)...)
	}
	d.kick()
	return d.judge(w, 3)
}

// receiveTests give useless room.
func (k *nic) receiveTests(d *driver) []test {
	return each(func(packed bool) (tests []test) {
		for _, with := range []uint64{0, featMergeable, featGuestOffloads | featCsum} {
			o := options{packed: packed, with: with&d.port.offered() | featIndirect}
			add := func(name string, room func(d *driver) []buf) {
				w := handled
				if name == otherRing {
					w = anything // the request may be overwritten before the device sees it
				}
				tests = append(tests, test{fmt.Sprintf("%s/%s, features %#x", format(packed), name, with), o, false, func(d *driver) error {
					return k.receiveInto(d, w, room(d)...)
				}})
			}
			for _, n := range []uint32{0, 1, 11, 12, 13, 26, 53, 54, 60, dataLen, 1 << 31} {
				add(fmt.Sprintf("room of %d", n), func(d *driver) []buf {
					if n > dataLen {
						return []buf{writable(d.ramEnd-4096, n)}
					}
					return []buf{d.room(n)}
				})
			}
			add("data", func(d *driver) []buf { return []buf{d.data(receiveLen)} })
			add("data and room", func(d *driver) []buf { return []buf{d.data(20), d.room(receiveLen)} })
			add("pieces of one byte", func(d *driver) []buf { return pieces(d.room(60), ones(60)...) })
			add("its own ring", func(d *driver) []buf { return []buf{writable(d.mem.phys+atReceive, receiveLen)} })
			add(otherRing, func(d *driver) []buf { return []buf{writable(d.mem.phys+atDesc, receiveLen)} })
			tests = append(tests, test{fmt.Sprintf("%s/a storm of room for nothing, features %#x", format(packed), with), o, false, k.uselessRoom})
		}
		return tests
	})
}

const otherRing = "the other ring"

// uselessRoom gives buffers too short for a header as fast as they come back, while
// answers arrive. The device must still do its other work.
func (k *nic) uselessRoom(d *driver) error {
	if err := d.prepare(d.opt); err != nil {
		return err
	}
	k.place(d)
	d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		for k.given-k.received.used() < receiveRoom {
			k.received.add(writable(d.mem.phys+slot(k.given), uint32(k.given%headerLen)))
			k.given++
		}
		d.port.notify(receiveQueue)
		n := d.ring.used() + 1
		d.ring.add(k.request(d)...)
		d.kick()
		if err := d.judge(succeeds, n); err != nil {
			return err
		}
	}
	return d.by.check()
}

// controlTests send commands, §5.1.6.5, that do not exist or are incomplete.
func (k *nic) controlTests(d *driver) (tests []test) {
	for class := range 8 {
		tests = append(tests, test{fmt.Sprintf("class %d", class), options{with: featControls & d.port.offered()}, false, func(d *driver) error {
			return k.commands(d, byte(class))
		}})
	}
	return tests
}

// commands sends each command of a class, with arguments of all lengths.
func (k *nic) commands(d *driver, class byte) error {
	if err := d.prepare(d.opt); err != nil {
		return err
	}
	k.place(d)
	d.port.selectQueue(controlQueue)
	d.port.setSize(64)
	d.port.setRings(d.otherQueue())
	d.port.enable(1)
	control := d.newRing(false, atOther, atOther+atDriver, atOther+atDevice, 64)
	clear(d.mem.region[atOther:atReceive])
	d.port.setStatus(acknowledge | driverIs | featuresOK | driverOK)
	n := 0
	for command := range byte(6) {
		for _, length := range []int{0, 1, 2, 3, 4, 5, 6, 8, 10, 100, 1000, 65536, 1 << 20} {
			for _, ack := range []uint32{0, 1, 100} {
				d.mem.region[atHeader], d.mem.region[atHeader+1] = class, command
				le.PutUint64(d.mem.region[atData:], d.rand.Uint64()>>d.rand.IntN(64))
				bufs := []buf{readable(d.mem.phys+atHeader, 2), d.data(uint32(length)), writable(d.mem.phys+atStatus, ack)}
				control.add(bufs...)
				d.port.notify(controlQueue)
				n++
				for end := time.Now().Add(patience); control.used() < n; {
					if d.port.status()&needsReset != 0 || time.Now().After(end) {
						return fmt.Errorf("command %d of %d bytes: status %#x", command, length, d.port.status())
					}
				}
			}
		}
	}
	return nil
}

package virtiotest

import (
	"bytes"
	"fmt"

	"vmm/devices/virtio"
)

var basicChecks = []check{
	{"reset", func(s *suite) { s.settle() }},
	{"requests", checkRequests},
	{"sizes", checkSizes},
	{"framing", checkFraming},
	{"full ring", checkFull},
	{"64-bit addresses", checkHigh},
	{"config", checkConfig},
	{"identity", checkIdentity},
	{"notifications", checkNotifications},
}

// ringFeatures are the ring features that can be negotiated.
var ringFeatures = []uint64{0, virtio.FeatureEventIdx, virtio.FeatureIndirectDesc, virtio.FeatureEventIdx | virtio.FeatureIndirectDesc}

// each runs f with every choice of ringFeatures, with chains in the ring and in
// tables.
func (s *suite) each(f func(Setup)) {
	s.Helper()
	for _, features := range ringFeatures {
		setup := s.setupWith(features)
		f(setup)
		if features&virtio.FeatureIndirectDesc != 0 {
			setup.Indirect = true
			f(setup)
		}
	}
}

// checkRequests checks that requests are answered one by one and several at once.
func checkRequests(s *suite) {
	s.each(func(setup Setup) {
		s.d.Start(setup)
		s.answers(40) // twice round the ring
		s.burst(4)
	})
}

// burst makes all queues answer n requests at once, ten times.
func (s *suite) burst(n int) {
	s.Helper()
	for range 10 {
		var last []*Ticket
		for _, q := range s.driven() {
			for range min(n, q.ring.free()/2) {
				last = append(last, q.Submit(s.request(q.index)))
			}
			q.Kick()
		}
		for _, t := range last {
			for _, q := range s.driven() {
				if q.flight[t.ID] == t {
					q.Wait(t)
				}
			}
		}
	}
}

// checkSizes: queues of all sizes work. (A queue of size 1 cannot have chains of 2,
// not even in tables, §2.7.5.3.1.)
func checkSizes(s *suite) {
	sizes := []uint16{2, 4, 8, 32, 64, 128, 256}
	if s.packed {
		sizes = append(sizes, 3, 5, 7, 33)
	}
	for _, size := range sizes {
		setup := s.setupWith(virtio.FeatureEventIdx | virtio.FeatureIndirectDesc)
		setup.Size, setup.Indirect = size, true
		s.d.Start(setup)
		s.answers(int(size)%70 + 3)
	}
}

// checkFraming: how a request is split into buffers means nothing, §2.7.4.1.
func checkFraming(s *suite) {
	for _, cut := range []int{1, 2, 3, 7, 100, 511, 4096} {
		setup := s.setupWith(virtio.FeatureIndirectDesc)
		setup.Size, setup.Indirect, setup.Cut = 256, true, cut
		s.d.Start(setup)
		for _, q := range s.driven() {
			r := s.request(q.index)
			for n := min(int(q.Layout.Size), 256); (len(r.Out)+cut-1)/cut+(r.In+cut-1)/cut > n; {
				cut *= 2
			}
			q.setup.Cut = cut
			t := q.Submit(r)
			q.Kick()
			q.Wait(t)
			q.setup.Indirect = false
			t = q.Submit(r)
			q.Kick()
			q.Wait(t)
		}
	}
}

// checkFull fills the rings before the first kick.
func checkFull(s *suite) {
	s.each(func(setup Setup) {
		s.d.Start(setup)
		for range 3 {
			for _, q := range s.driven() {
				n := 0
				for ; q.Room(1); n++ {
					q.Submit(s.request(q.index))
				}
				q.Kick()
				q.Poll(q.Done + n)
			}
		}
	})
}

// checkHigh uses buffers above 4 GiB, and at the ends of regions.
func checkHigh(s *suite) {
	low := s.d.buffers
	defer func() { s.d.buffers = low }()
	s.d.Start(s.setup())
	s.d.buffers = zone{addr: highBase, end: highBase + highSize}
	s.d.buffers.reset()
	s.answers(3)
	for _, q := range s.driven() {
		r := s.request(q.index)
		size := round(max(r.In, len(r.Out)))
		s.d.buffers = zone{addr: highBase + highSize - 2*size, end: highBase + highSize}
		s.d.buffers.reset()
		t := q.Submit(r)
		q.Kick()
		q.Wait(t)
	}
}

// checkConfig accesses the device's configuration at all widths and offsets.
func checkConfig(s *suite) {
	d := s.d
	_, size := d.access.config()
	n := min(size, 256)
	whole := make([]byte, n)
	for i := range whole {
		d.ReadConfig(uint64(i), whole[i:i+1])
	}
	if c := s.target.Config; c != nil && (!bytes.Equal(whole[:len(c)], c) || !bytes.Equal(whole[len(c):], make([]byte, len(whole)-len(c)))) {
		s.Fatalf("the configuration is %x, want %x", whole, c)
	}
	same := func(what string) {
		s.Helper()
		for _, width := range []int{1, 2, 4, 8} {
			for off := 0; off+width <= len(whole); off++ {
				p := make([]byte, width)
				if d.ReadConfig(uint64(off), p); !bytes.Equal(p, whole[off:off+width]) {
					s.Fatalf("%s: %d bytes of the configuration at %d are %x, want %x", what, width, off, p, whole[off:off+width])
				}
			}
		}
	}
	same("first")
	for _, width := range []int{1, 2, 4, 8} {
		for off := 0; off+width <= len(whole); off++ {
			p := bytes.Repeat([]byte{byte(off + width)}, width)
			d.WriteConfig(uint64(off), p)
			for i := range p {
				if off+i < len(s.target.Writable) {
					m := s.target.Writable[off+i]
					whole[off+i] = whole[off+i]&^m | p[i]&m
				}
			}
		}
	}
	same("after writes")
	for _, off := range []uint64{size - 1, size - 4, size - 8} {
		p := []byte{1}
		if d.ReadConfig(off, p); p[0] != 0 {
			s.Errorf("the configuration at %#x is %#x", off, p)
		}
	}
	if len(s.target.Writable) > 0 { // restored for the other checks
		d.WriteConfig(0, s.target.Config[:len(s.target.Writable)])
	}
}

// checkIdentity checks what a driver finds before it knows the device.
func checkIdentity(s *suite) {
	d := s.d
	dev := d.Slot.Device
	if got, want := d.Offered(), dev.Features()|virtio.FeatureVersion1|virtio.FeatureIndirectDesc|virtio.FeatureEventIdx|virtio.FeatureRingPacked|virtio.FeatureRingReset; got != want {
		s.Errorf("features %#x, want %#x", got, want)
	}
	for _, sel := range []uint32{2, 3, 31, 1 << 31, 0xffffffff} {
		d.Set(DeviceFeatureSelect, sel)
		if got := d.Get(DeviceFeature); got != 0 {
			s.Errorf("features %#x of selector %#x", got, sel)
		}
	}
	if fmt.Sprint(d.Sizes) != fmt.Sprint(dev.QueueSizes()) {
		s.Errorf("queue sizes %d, want %d", d.Sizes, dev.QueueSizes())
	}
	if s.kind != MMIO {
		if got := d.Get(NumQueues); got != uint32(len(d.Sizes)) {
			s.Errorf("%d queues, want %d", got, len(d.Sizes))
		}
	}
	for _, q := range []uint32{uint32(len(d.Sizes)), 0x7fff, 0xffff} {
		d.Set(QueueSelect, q)
		if got := d.maxSize(); got != 0 {
			s.Errorf("queue %d, which is none, has size %d", q, got)
		}
		if got := d.Get(QueueVector); s.kind != MMIO && got != noVector {
			s.Errorf("queue %d, which is none, has vector %#x", q, got)
		}
	}
}

// checkNotifications: PCI has two ways to notify, and a driver may use either; the
// ports come first.
func checkNotifications(s *suite) {
	if s.kind == MMIO {
		s.Skip("there is one place")
	}
	p := s.d.pci()
	command, own := p.cfg(cfgCommand, 2), p.bell
	defer func() {
		p.bell = own
		p.setCfg(cfgCommand, 2, command)
	}()
	if len(p.bells) != 2 || !p.ports[p.bells[0].bar] || p.ports[p.bells[1].bar] {
		s.Fatalf("structures for notifications: %+v", p.bells)
	}
	s.d.Start(s.setup())
	for _, io := range []uint32{commandIO, 0} {
		p.setCfg(cfgCommand, 2, command&^commandIO|io)
		for _, p.bell = range p.bells {
			if last := uint64(len(s.d.Sizes)-1)*p.bell.multiplier + 2; last > p.bell.length {
				s.Errorf("a structure of %d bytes for %d queues", p.bell.length, len(s.d.Sizes))
			}
			if io != 0 || !p.ports[p.bell.bar] {
				s.answers(3)
			}
		}
	}
}

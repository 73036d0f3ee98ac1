package vsock

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

const (
	guestCID    = 42
	strangerCID = 43 // the guest may call it, but no peer has it
)

// driver is a guest's driver with a device and no transport. Everything happens on the
// test's goroutine: Wake only makes a note, and run serves.
type driver struct {
	t     testing.TB
	d     *Device
	h     *town
	rx    *ring
	tx    *ring
	event *ring
	woken [3]atomic.Bool
	next  uint32 // the guest's next port

	interrupt func() // of any queue, if not nil: called in the middle of the device's work
}

// The layout of the rings: each has a page for descriptors, a page for the two rings,
// and buffers of 68 KiB behind all of them.
const (
	ringSize    = 64
	ringPages   = 0x3000
	bufferSize  = 4<<10 + headerSize
	packetSize  = 64<<10 + headerSize
	dataAt      = 3 * ringPages
	eventBuffer = 16
	ramSize     = (dataAt + ringSize*(bufferSize+packetSize+eventBuffer) + mem.PageSize) &^ (mem.PageSize - 1)
)

func (d *driver) Wake(queue int) { d.woken[queue].Store(true) }
func (*driver) ConfigChanged()   {}

// newDriver returns a driver with a started device and n receive buffers.
func newDriver(t testing.TB, n int) *driver {
	t.Helper()
	d := &driver{t: t, h: &town{listen: map[uint32]bool{}}, next: 1000}
	d.d = New(guestCID, d.h)
	rings := newRings(t, func() {
		if d.interrupt != nil {
			d.interrupt()
		}
	})
	d.rx, d.tx, d.event = rings[queueReceive], rings[queueTransmit], rings[queueEvent]
	d.start()
	for range n {
		d.rx.add(d.rx.size)
	}
	d.run()
	t.Cleanup(d.d.Stop)
	return d
}

func (d *driver) start() {
	if err := d.d.Start(d.d.Features(), d); err != nil {
		d.t.Fatal(err)
	}
	for i := range d.woken {
		d.Wake(i)
	}
}

// run serves the queues that were woken.
func (d *driver) run() {
	for again := true; again; {
		again = false
		for i, r := range []*ring{d.rx, d.tx, d.event} {
			if d.woken[i].Swap(false) {
				d.d.Serve(i, r.q)
				again = true
			}
		}
	}
}

// ring is a queue. Buffer i is descriptor i, in turn.
type ring struct {
	ram       []byte
	q         *virtq.Queue
	base, at  int
	size      int     // of a buffer
	noIRQ     mem.U16 // VIRTQ_AVAIL_F_NO_INTERRUPT, §2.7.6
	noKick    mem.U16 // VIRTQ_USED_F_NO_NOTIFY, §2.7.8
	availIdx  mem.U16
	usedIdx   mem.U16
	seen, got uint16
}

// newRing returns the i-th ring in ram, with its buffers at data.
func newRing(t testing.TB, ram []byte, i, data, size int, interrupt func()) *ring {
	t.Helper()
	r := &ring{ram: ram, base: i * ringPages, at: data, size: size}
	for k := range ringSize {
		e := ram[r.base+16*k:]
		le.PutUint64(e, uint64(data+k*size))
		if i != queueTransmit {
			le.PutUint16(e[12:], 2)
		}
	}
	avail, used := mem.Addr(r.base+0x1000), mem.Addr(r.base+0x2000)
	m := mem.New(mem.Region{Bytes: ram})
	var err error
	l := virtq.Layout{Size: ringSize, Desc: mem.Addr(r.base), Driver: avail, Device: used}
	if r.q, err = virtq.New(m, l, virtq.Format{}, virtq.State{}, interrupt); err != nil {
		t.Fatal(err)
	}
	r.noIRQ, _ = m.U16(avail)
	r.noKick, _ = m.U16(used)
	r.availIdx, _ = m.U16(avail + 2)
	r.usedIdx, _ = m.U16(used + 2)
	return r
}

// rams are reused, or a fuzz target would do little but clear memory.
var rams = sync.Pool{New: func() any { return new([ramSize]byte) }}

// newRings returns the three rings of a device.
func newRings(t testing.TB, interrupt func()) (rings [3]*ring) {
	t.Helper()
	sizes := [3]int{bufferSize, packetSize, eventBuffer}
	at := dataAt
	block := rams.Get().(*[ramSize]byte)
	t.Cleanup(func() { rams.Put(block) })
	ram := block[:]
	clear(ram[:dataAt])
	for i, size := range sizes {
		rings[i] = newRing(t, ram, i, at, size, interrupt)
		at += ringSize * size
	}
	return rings
}

// next returns the first n bytes of the buffer that add makes available.
func (r *ring) next(n int) []byte {
	return r.ram[r.at+int(r.seen)%ringSize*r.size:][:n]
}

// add makes the first n bytes of the next buffer available.
func (r *ring) add(n int) {
	i := int(r.seen) % ringSize
	le.PutUint32(r.ram[r.base+16*i+8:], uint32(n))
	le.PutUint16(r.ram[r.base+0x1000+4+2*i:], uint16(i))
	r.seen++
	r.availIdx.Store(r.seen)
}

// addPacket makes a packet available.
func (r *ring) addPacket(p packet, data []byte) {
	b := r.next(headerSize + len(data))
	p.encode((*[headerSize]byte)(b))
	copy(b[headerSize:], data)
	r.add(len(b))
}

// room returns how many buffers the ring has room for.
func (r *ring) room() int { return ringSize - int(r.seen-r.got) }

// used returns the next used buffer.
func (r *ring) used() (b []byte, ok bool) {
	if r.usedIdx.Load() == r.got {
		return nil, false
	}
	e := r.ram[r.base+0x2000+4+8*int(r.got%ringSize):]
	r.got++
	i, n := int(le.Uint32(e)), int(le.Uint32(e[4:]))
	return r.ram[r.at+i*r.size:][:n], true
}

// put sends a packet, header and data, in a chain of one buffer.
func (d *driver) put(p packet, data []byte) {
	d.t.Helper()
	if d.tx.room() == 0 {
		d.t.Fatal("no room to send")
	}
	d.tx.addPacket(p, data)
	d.Wake(queueTransmit)
	d.run()
	for _, ok := d.tx.used(); ok; _, ok = d.tx.used() {
	}
}

// take returns the next packet for the guest, and gives its buffer back.
func (d *driver) take() (p packet, data []byte, ok bool) {
	d.t.Helper()
	b, ok := d.rx.used()
	if !ok {
		return p, nil, false
	}
	if len(b) < headerSize {
		d.t.Fatalf("a packet of %d bytes", len(b))
	}
	p.decode((*[headerSize]byte)(b))
	data = append(data, b[headerSize:]...)
	if len(data) != int(p.len) {
		d.t.Fatalf("len %d of %d bytes", p.len, len(data))
	}
	if p.srcCID != hostCID && p.srcCID != strangerCID || p.dstCID != guestCID {
		d.t.Fatalf("from %d to %d", p.srcCID, p.dstCID)
	}
	return p, data, true
}

// give gives the device n more buffers.
func (d *driver) give(n int) {
	for range n {
		d.rx.add(d.rx.size)
	}
	d.Wake(queueReceive)
	d.run()
}

// expect returns the next packet. It must have operation op.
func (d *driver) expect(op uint16) (packet, []byte) {
	d.t.Helper()
	p, data, ok := d.take()
	if !ok {
		d.t.Fatalf("no packet, want %d", op)
	}
	if p.op != op {
		d.t.Fatalf("%+v, want %d", p, op)
	}
	d.give(1)
	return p, data
}

// quiet checks that there is no packet.
func (d *driver) quiet() {
	d.t.Helper()
	if p, _, ok := d.take(); ok {
		d.t.Fatalf("unexpected: %+v", p)
	}
}

// socket is the guest's end of a connection.
type socket struct {
	d           *driver
	host, guest uint32
	alloc, read uint32 // its receive buffer, and what the program has read
	pipe        *pipe
}

// header returns the header of a packet from the socket.
func (s *socket) header(op uint16, flags uint32, n int) packet {
	return packet{
		srcCID: guestCID, dstCID: hostCID, srcPort: s.guest, dstPort: s.host, len: uint32(n),
		kind: typeStream, op: op, flags: flags, bufAlloc: s.alloc, fwdCnt: s.read,
	}
}

func (s *socket) put(op uint16, flags uint32, data []byte) {
	s.d.put(s.header(op, flags, len(data)), data)
}

// dial connects the guest to the host.
func (d *driver) dial() *socket {
	d.t.Helper()
	const port = 80
	d.h.listen[port] = true
	d.next++
	s := &socket{d: d, host: port, guest: d.next, alloc: 256 << 10}
	s.put(opRequest, 0, nil)
	d.expect(opResponse)
	s.pipe = d.h.pipes[len(d.h.pipes)-1]
	s.pipe.change(func() { s.pipe.keep = true }, 0)
	return s
}

// listen makes the host connect to the guest.
func (d *driver) listen() *socket {
	d.t.Helper()
	const port = 22
	p := d.h.call(port)
	if p == nil {
		d.t.Fatal("refused")
	}
	d.run()
	request, _ := d.expect(opRequest)
	if request.dstPort != port {
		d.t.Fatalf("%+v", request)
	}
	s := &socket{d: d, host: request.srcPort, guest: port, alloc: 256 << 10, pipe: p}
	s.put(opResponse, 0, nil)
	if got := p.state().accepted; got != s.host {
		d.t.Fatalf("accepted as %d, want %d", got, s.host)
	}
	p.change(func() { p.keep = true }, 0)
	return s
}

// receive takes data until there is no more, and gives the buffers back.
func (s *socket) receive() (all []byte) {
	s.d.t.Helper()
	for {
		p, data, ok := s.d.take()
		if !ok {
			return all
		}
		if p.op != opData || p.dstPort != s.guest {
			s.d.t.Fatalf("%+v", p)
		}
		all = append(all, data...)
		s.d.give(1)
	}
}

// pattern returns n bytes in which no two stretches are alike.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + i>>16)
	}
	return b
}

func (d *driver) counts(conns, alive int) error {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	if got := d.d.Conns(); got != conns || d.h.alive != alive {
		return fmt.Errorf("%d connections, %d open ends, want %d, %d", got, d.h.alive, conns, alive)
	}
	return nil
}

// over checks that nothing is left of any connection.
func (d *driver) over() {
	d.t.Helper()
	if err := d.counts(0, 0); err != nil {
		d.t.Error(err)
	}
}

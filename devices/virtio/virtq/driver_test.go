package virtq_test

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

// A driver is the guest's side of a queue. It follows Linux: correct, and no more than
// the tests need.
type driver interface {
	// add makes a chain available and returns its id, which used returns too.
	add(bufs []buf) uint16
	nextID() uint16 // what add will return
	// kick tells whether the device wants a kick for what was added since the
	// last kick.
	kick() bool
	// used returns the next used chain.
	used() (id uint16, n uint32, ok bool)
	// listen asks for an interrupt once n+1 more descriptors of the ring are used;
	// ignore asks for none.
	listen(n uint16)
	ignore()
	// free returns how many chains of n buffers can be added.
	free(n int) int
}

type buf struct {
	addr  mem.Addr
	n     uint32
	write bool
}

// The layout of the tests' RAM.
const (
	ramBase   = mem.Addr(0x100000)
	ramSize   = 1 << 20
	descAt    = ramBase
	driverAt  = ramBase + 0x10000
	deviceAt  = ramBase + 0x20000
	tablesAt  = ramBase + 0x40000 // of indirect descriptors
	tableSize = 0x400
	dataAt    = ramBase + 0x80000
)

const (
	next     = 1
	write    = 2
	indirect = 4
	avail    = 1 << 7
	used     = 1 << 15
)

var le = binary.LittleEndian

// A rig is a queue, a driver and their memory.
type rig struct {
	testing.TB
	m          *mem.Memory
	ram        []byte
	layout     virtq.Layout
	format     virtq.Format
	q          *virtq.Queue
	d          driver
	interrupts atomic.Int64
	onSignal   func()
}

func newRig(t testing.TB, f virtq.Format, size uint16) *rig {
	t.Helper()
	r := &rig{TB: t, ram: make([]byte, ramSize), format: f}
	r.m = mem.New(mem.Region{Base: ramBase, Bytes: r.ram})
	r.layout = virtq.Layout{Size: size, Desc: descAt, Driver: driverAt, Device: deviceAt}
	r.start(f.Fresh())
	if f.Packed {
		r.d = newPackedDriver(r)
	} else {
		r.d = newSplitDriver(r)
	}
	return r
}

func (r *rig) start(s virtq.State) {
	r.Helper()
	q, err := virtq.New(r.m, r.layout, r.format, s, func() {
		r.interrupts.Add(1)
		if r.onSignal != nil {
			r.onSignal()
		}
	})
	if err != nil {
		r.Fatal(err)
	}
	r.q = q
}

func (r *rig) at(a mem.Addr, n int) []byte { return r.ram[a-ramBase:][:n] }

func (r *rig) u16(a mem.Addr) mem.U16 {
	c, err := r.m.U16(a)
	if err != nil {
		r.Fatal(err)
	}
	return c
}

func (r *rig) words(a mem.Addr, n int) []uint32 {
	w, err := r.m.Words(a, uint64(n))
	if err != nil {
		r.Fatal(err)
	}
	return w
}

// add adds a chain. The ring must have room for it.
func (r *rig) add(bufs ...buf) uint16 {
	r.Helper()
	if r.d.free(len(bufs)) == 0 {
		r.Fatal("the ring is full")
	}
	return r.d.add(bufs)
}

// pop pops a chain. There must be one.
func (r *rig) pop() *virtq.Chain {
	r.Helper()
	c := r.q.Pop()
	if c == nil {
		r.Fatalf("no chain, %v", r.q.Err())
	}
	return c
}

// empty checks that no chain is available and that the queue is not broken.
func (r *rig) empty() {
	r.Helper()
	if c := r.q.Pop(); c != nil || r.q.Err() != nil {
		r.Fatalf("popped %v, error %v", c, r.q.Err())
	}
}

// wantUsed checks the next used chain.
func (r *rig) wantUsed(id uint16, n uint32) {
	r.Helper()
	if gotID, gotN, ok := r.d.used(); !ok || gotID != id || gotN != n {
		r.Fatalf("used %d, %d bytes, %v; want %d, %d bytes", gotID, gotN, ok, id, n)
	}
}

// stop stops and drains the queue.
func (r *rig) stop() virtq.State {
	r.Helper()
	r.q.Stop()
	select {
	case <-r.q.Drained():
	default:
		r.Fatal("not drained")
	}
	return r.q.State()
}

// putTable writes an indirect table for id, in either format.
func (r *rig) putTable(id uint16, bufs []buf) (mem.Addr, uint32) {
	at := tablesAt + mem.Addr(id)*tableSize
	if 16*len(bufs) > tableSize { // then it is the only one
		at = tablesAt
	}
	for i, b := range bufs {
		d := r.at(at+mem.Addr(16*i), 16)
		le.PutUint64(d, uint64(b.addr))
		le.PutUint32(d[8:], b.n)
		f := uint16(0)
		if b.write {
			f |= write
		}
		if r.format.Packed {
			le.PutUint16(d[12:], 0xdead) // reserved
			le.PutUint16(d[14:], f)
			continue
		}
		if i < len(bufs)-1 {
			f |= next
		}
		le.PutUint16(d[12:], f)
		le.PutUint16(d[14:], uint16(i+1))
	}
	return at, uint32(16 * len(bufs))
}

// forAll runs f for all formats.
func forAll(t *testing.T, f func(t *testing.T, format virtq.Format)) {
	for i := range 8 {
		format := virtq.Format{Packed: i&4 != 0, Indirect: i&2 != 0, EventIdx: i&1 != 0}
		t.Run(name(format), func(t *testing.T) { f(t, format) })
	}
}

func name(f virtq.Format) string {
	s := "split"
	if f.Packed {
		s = "packed"
	}
	if f.Indirect {
		s += ",indirect"
	}
	if f.EventIdx {
		s += ",event_idx"
	}
	return s
}

// needEvent is vring_need_event of linux/virtio_ring.h.
func needEvent(event, new, old uint16) bool { return new-event-1 < new-old }

// splitDriver is a driver of a split virtqueue, §2.7.13 and §2.7.14.
type splitDriver struct {
	r                        *rig
	size                     uint16
	desc, availRing, usedAll []byte
	availFlags, availIdx     mem.U16
	usedEvent, availEvent    mem.U16
	usedFlags, usedIdx       mem.U16
	freeDescs                []uint16
	next                     []uint16 // of a chain
	length                   []uint16 // of the chain with this head
	idx, kicked, seen        uint16
}

func newSplitDriver(r *rig) *splitDriver {
	n := int(r.layout.Size)
	d := &splitDriver{
		r: r, size: r.layout.Size,
		desc:       r.at(descAt, 16*n),
		availRing:  r.at(driverAt+4, 2*n),
		usedAll:    r.at(deviceAt+4, 8*n),
		availFlags: r.u16(driverAt), availIdx: r.u16(driverAt + 2),
		usedEvent: r.u16(driverAt + mem.Addr(4+2*n)), availEvent: r.u16(deviceAt + mem.Addr(4+8*n)),
		usedFlags: r.u16(deviceAt), usedIdx: r.u16(deviceAt + 2),
		next: make([]uint16, n), length: make([]uint16, n),
	}
	for i := range n {
		d.freeDescs = append(d.freeDescs, uint16(i))
	}
	return d
}

func (d *splitDriver) free(n int) int {
	if d.r.format.Indirect {
		n = 1
	}
	return len(d.freeDescs) / n
}

func (d *splitDriver) take() uint16 {
	last := len(d.freeDescs) - 1
	i := d.freeDescs[last]
	d.freeDescs = d.freeDescs[:last]
	return i
}

func (d *splitDriver) nextID() uint16 { return d.freeDescs[len(d.freeDescs)-1] }

func (d *splitDriver) add(bufs []buf) uint16 {
	head := d.take()
	d.length[head] = uint16(len(bufs))
	if d.r.format.Indirect {
		d.length[head] = 1
		at, n := d.r.putTable(head, bufs)
		d.put(head, buf{addr: at, n: n}, indirect, 0)
	} else {
		for i, at := 0, head; i < len(bufs); i++ {
			flags, following := uint16(0), uint16(0)
			if i < len(bufs)-1 {
				flags, following = next, d.take()
			}
			d.put(at, bufs[i], flags, following)
			d.next[at] = following
			at = following
		}
	}
	le.PutUint16(d.availRing[2*int(d.idx%d.size):], head)
	d.idx++
	d.availIdx.Store(d.idx)
	return head
}

func (d *splitDriver) put(i uint16, b buf, flags, following uint16) {
	if b.write {
		flags |= write
	}
	e := d.desc[16*int(i):]
	le.PutUint64(e, uint64(b.addr))
	le.PutUint32(e[8:], b.n)
	le.PutUint16(e[12:], flags)
	le.PutUint16(e[14:], following)
}

func (d *splitDriver) kick() bool {
	old := d.kicked
	d.kicked = d.idx
	if d.r.format.EventIdx {
		return needEvent(d.availEvent.Load(), d.idx, old)
	}
	return d.usedFlags.Load()&1 == 0
}

func (d *splitDriver) used() (uint16, uint32, bool) {
	if d.usedIdx.Load() == d.seen {
		return 0, 0, false
	}
	e := d.usedAll[8*int(d.seen%d.size):]
	d.seen++
	head, n := uint16(le.Uint32(e)), le.Uint32(e[4:])
	for i, at := uint16(0), head; i < d.length[head]; i++ {
		d.freeDescs = append(d.freeDescs, at)
		at = d.next[at]
	}
	return head, n, true
}

func (d *splitDriver) listen(n uint16) {
	if d.r.format.EventIdx {
		d.usedEvent.Store(d.seen + n)
	} else {
		d.availFlags.Store(0)
	}
}

func (d *splitDriver) ignore() {
	if d.r.format.EventIdx {
		d.usedEvent.Store(d.seen - 1)
	} else {
		d.availFlags.Store(1)
	}
}

// packedDriver is a driver of a packed virtqueue, §2.8.21 and §2.8.22.
type packedDriver struct {
	r                     *rig
	size                  int
	ring                  []uint32
	driverEvent, devEvent *uint32
	ids                   []uint16
	length                []int // of the list with this id
	freeDescs             int
	availOff, usedOff     int
	availWrap, usedWrap   uint32
	added                 uint16
}

func newPackedDriver(r *rig) *packedDriver {
	n := int(r.layout.Size)
	d := &packedDriver{
		r: r, size: n, ring: r.words(descAt, 4*n), driverEvent: &r.words(driverAt, 1)[0], devEvent: &r.words(deviceAt, 1)[0],
		length: make([]int, n), freeDescs: n, availWrap: 1, usedWrap: 1,
	}
	for i := range n {
		d.ids = append(d.ids, uint16(i))
	}
	return d
}

func (d *packedDriver) free(n int) int {
	if d.r.format.Indirect {
		n = 1
	}
	return d.freeDescs / n
}

func (d *packedDriver) nextID() uint16 { return d.ids[len(d.ids)-1] }

func (d *packedDriver) add(bufs []buf) uint16 {
	last := len(d.ids) - 1
	id := d.ids[last]
	d.ids = d.ids[:last]
	extra := uint32(0)
	var one [1]buf
	if d.r.format.Indirect {
		at, n := d.r.putTable(id, bufs)
		one[0] = buf{addr: at, n: n}
		bufs, extra = one[:], indirect
	}
	first, firstWord := d.availOff, uint32(0)
	for i, b := range bufs {
		flags := extra
		if i < len(bufs)-1 {
			flags |= next
		}
		if b.write {
			flags |= write
		}
		if d.availWrap == 1 {
			flags |= avail
		} else {
			flags |= used
		}
		e := d.ring[4*d.availOff:]
		e[0], e[1], e[2] = uint32(b.addr), uint32(b.addr>>32), b.n
		word := flags<<16 | uint32(id)
		if i == 0 {
			firstWord = word
		} else {
			atomic.StoreUint32(&e[3], word)
		}
		if d.availOff++; d.availOff == d.size {
			d.availOff = 0
			d.availWrap ^= 1
		}
	}
	atomic.StoreUint32(&d.ring[4*first+3], firstWord)
	d.length[id] = len(bufs)
	d.freeDescs -= len(bufs)
	d.added += uint16(len(bufs))
	return id
}

// kick is virtqueue_kick_prepare_packed of Linux.
func (d *packedDriver) kick() bool {
	new := uint16(d.availOff)
	old := new - d.added
	d.added = 0
	e := atomic.LoadUint32(d.devEvent)
	if flags := e >> 16 & 3; flags != 2 {
		return flags != 1
	}
	event := uint16(e &^ (1 << 15))
	if e>>15&1 != d.availWrap {
		event -= uint16(d.size)
	}
	return needEvent(event, new, old)
}

func (d *packedDriver) used() (uint16, uint32, bool) {
	e := d.ring[4*d.usedOff:]
	word := atomic.LoadUint32(&e[3])
	if word>>31 != d.usedWrap || word>>23&1 != d.usedWrap {
		return 0, 0, false
	}
	id, n := uint16(word), e[2]
	if written := word>>16&write != 0; written != (n > 0) {
		panic(fmt.Sprintf("used descriptor: %d bytes, WRITE is %v", n, written))
	}
	d.ids = append(d.ids, id)
	d.freeDescs += d.length[id]
	if d.usedOff += d.length[id]; d.usedOff >= d.size {
		d.usedOff -= d.size
		d.usedWrap ^= 1
	}
	return id, n, true
}

func (d *packedDriver) listen(n uint16) {
	if !d.r.format.EventIdx {
		atomic.StoreUint32(d.driverEvent, 0)
		return
	}
	off, wrap := d.usedOff+int(n), d.usedWrap
	for ; off >= d.size; off -= d.size {
		wrap ^= 1
	}
	atomic.StoreUint32(d.driverEvent, 2<<16|wrap<<15|uint32(off))
}

func (d *packedDriver) ignore() { atomic.StoreUint32(d.driverEvent, 1<<16) }

package balloon

import (
	"bytes"
	"testing"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

// Where a test's guest has its rings, one place for each queue, and what it puts into
// its buffers. All other pages are for the balloon.
const (
	ramBase  = mem.Addr(0x100000)
	ramSize  = 4 << 20
	highBase = mem.Addr(1 << 32)
	highSize = 16 * mem.PageSize

	ringsAt = ramBase
	ringGap = 0x4000
	dataAt  = ramBase + 0x20000
	pagesAt = ramBase + 0x40000 // and all behind it
)

// driver drives a balloon as a guest would, except that it calls Serve itself.
type driver struct {
	t       testing.TB
	dev     *Device
	m       *mem.Memory
	q       [queues]*virtq.Queue
	avail   [queues]uint16
	used    [queues]uint16
	wakes   chan int
	changes int
}

func (d *driver) Wake(queue int) { d.wakes <- queue }
func (d *driver) ConfigChanged() { d.changes++ }

type desc struct {
	addr     mem.Addr
	n        uint32
	writable bool
}

// start starts a balloon over new memory, which is full.
func start(t testing.TB, features uint64) *driver {
	t.Helper()
	m, err := mem.Map(mem.Range{Base: ramBase, Size: ramSize}, mem.Range{Base: highBase, Size: highSize})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Regions() {
		copy(r.Bytes, bytes.Repeat([]byte{0xee}, len(r.Bytes)))
	}
	d := &driver{t: t, dev: New(m, nil), m: m, wakes: make(chan int, 64)}
	d.run(features)
	t.Cleanup(func() {
		d.stop()
		m.Close()
	})
	return d
}

// run starts the device with new rings.
func (d *driver) run(features uint64) {
	d.t.Helper()
	for i := range d.q {
		at := ringsAt + mem.Addr(i)*ringGap
		clear(d.bytes(at, ringGap))
		l := virtq.Layout{Size: queueSize, Desc: at, Driver: at + 0x1000, Device: at + 0x2000}
		var err error
		if d.q[i], err = virtq.New(d.m, l, virtq.Format{}, virtq.State{}, func() {}); err != nil {
			d.t.Fatal(err)
		}
		d.avail[i], d.used[i] = 0, 0
	}
	if err := d.dev.Start(features, d); err != nil {
		d.t.Fatal(err)
	}
}

func (d *driver) stop() {
	for _, q := range d.q {
		q.Stop()
		<-q.Drained()
	}
	d.dev.Stop()
}

func (d *driver) bytes(a mem.Addr, n uint64) []byte {
	d.t.Helper()
	b, err := d.m.Slice(a, n)
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

// submit makes a chain available. A queue has one chain at a time, except in the few
// tests that add more.
func (d *driver) submit(queue int, chain ...desc) {
	at := ringsAt + mem.Addr(queue)*ringGap
	head := int(d.avail[queue]) % 8 * 16
	for i, c := range chain {
		e := d.bytes(at+mem.Addr(16*(head+i)), 16)
		flags := uint16(0)
		if c.writable {
			flags |= 2
		}
		if i < len(chain)-1 {
			flags |= 1
		}
		le.PutUint64(e, uint64(c.addr))
		le.PutUint32(e[8:], c.n)
		le.PutUint16(e[12:], flags)
		le.PutUint16(e[14:], uint16(head+i+1))
	}
	le.PutUint16(d.bytes(at+0x1000+4+2*mem.Addr(d.avail[queue]%queueSize), 2), uint16(head))
	d.avail[queue]++
	idx, err := d.m.U16(at + 0x1000 + 2)
	if err != nil {
		d.t.Fatal(err)
	}
	idx.Store(d.avail[queue])
}

// answered returns how many chains of a queue were used since the last call. None may
// have been written to.
func (d *driver) answered(queue int) (n int) {
	d.t.Helper()
	at := ringsAt + mem.Addr(queue)*ringGap + 0x2000
	idx, err := d.m.U16(at + 2)
	if err != nil {
		d.t.Fatal(err)
	}
	for ; d.used[queue] != idx.Load(); n++ {
		if w := le.Uint32(d.bytes(at+8+8*mem.Addr(d.used[queue]%queueSize), 4)); w != 0 {
			d.t.Errorf("queue %d: %d bytes were written", queue, w)
		}
		d.used[queue]++
	}
	return n
}

// do submits one chain and serves it.
func (d *driver) do(queue int, chain ...desc) {
	d.t.Helper()
	d.submit(queue, chain...)
	d.dev.Serve(queue, d.q[queue])
	if n := d.answered(queue); n != 1 {
		d.t.Fatalf("queue %d: %d answers to one request", queue, n)
	}
}

// numbers puts page numbers into the guest's memory.
func (d *driver) numbers(list []uint32) desc {
	b := d.bytes(dataAt, 4*uint64(len(list)))
	for i, n := range list {
		le.PutUint32(b[4*i:], n)
	}
	return desc{addr: dataAt, n: uint32(len(b))}
}

// discarded returns the numbers of the pages that are zeros, among those for the balloon
// and those of the upper region. It fills them again.
func (d *driver) discarded() (list []uint32) {
	d.t.Helper()
	for _, r := range []mem.Range{{Base: pagesAt, Size: uint64(ramBase + ramSize - pagesAt)}, {Base: highBase, Size: highSize}} {
		for a := r.Base; a < r.Base+mem.Addr(r.Size); a += mem.PageSize {
			p := d.bytes(a, mem.PageSize)
			switch {
			case bytes.Equal(p, make([]byte, mem.PageSize)):
				list = append(list, uint32(a/mem.PageSize))
			case !bytes.Equal(p, bytes.Repeat([]byte{0xee}, mem.PageSize)):
				d.t.Errorf("page %#x has changed, and not to zeros", a/mem.PageSize)
			}
			copy(p, bytes.Repeat([]byte{0xee}, mem.PageSize))
		}
	}
	return list
}

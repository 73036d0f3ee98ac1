package virtiotest

import (
	"bytes"
	"fmt"
	"time"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

// A Queue is the driver's side of a queue.
type Queue struct {
	d      *Driver
	index  int
	setup  Setup
	Layout virtq.Layout
	Format virtq.Format
	ring   ring
	flight map[uint16]*Ticket // by ID
	Done   int                // how many were answered
}

// A Ticket is a submitted request.
type Ticket struct {
	Request
	ID     uint16
	Done   bool
	N      uint32 // bytes that the device wrote
	room   mem.Addr
	blocks []span // of RAM, to be freed
}

func (d *Driver) newQueue(i int, size uint16, features uint64, s Setup) *Queue {
	d.tb.Helper()
	q := &Queue{d: d, index: i, setup: s, Format: format(features), flight: map[uint16]*Ticket{}}
	desc, driver, device := areas(int(size), q.Format)
	q.Layout = virtq.Layout{Size: size, Desc: d.rings.take(desc), Driver: d.rings.take(driver), Device: d.rings.take(device)}
	if q.Layout.Desc == 0 || q.Layout.Driver == 0 || q.Layout.Device == 0 {
		d.tb.Fatal("internal error: no RAM for the rings")
	}
	q.ring = newRing(memory{d.tb, d.Board.RAM}, q.Layout, q.Format)
	d.Queues = append(d.Queues, q)
	return q
}

// place tells the device where the queue is, §4.1.5.1.3 and §4.2.3.2.
func (q *Queue) place() {
	d := q.d
	d.tb.Helper()
	d.Set(QueueSelect, uint32(q.index))
	if d.Slot.Kind != MMIO {
		if off := d.Get(QueueNotifyOff); off != uint32(q.index) {
			d.tb.Fatalf("queue_notify_off %d of queue %d", off, q.index)
		}
		if d.Slot.Kind == MSIX && !q.setup.Silent {
			v := uint32(q.index)
			if q.setup.Shared {
				v = 0
			}
			d.Set(QueueVector, v)
			if got := d.Get(QueueVector); got != v {
				d.tb.Fatalf("vector %d of queue %d", got, q.index)
			}
		}
	}
	d.Set(QueueSize, uint32(q.Layout.Size))
	q.set(QueueDesc, q.Layout.Desc)
	q.set(QueueDriver, q.Layout.Driver)
	q.set(QueueDevice, q.Layout.Device)
}

func (q *Queue) set(r Register, a mem.Addr) {
	q.d.Set(r, uint32(a))
	q.d.Set(r+1, uint32(a>>32))
}

func (q *Queue) enable() {
	q.d.tb.Helper()
	q.d.Set(QueueSelect, uint32(q.index))
	q.d.Set(QueueEnable, 1)
	if q.d.Get(QueueEnable) != 1 {
		q.d.tb.Fatalf("queue %d is not enabled", q.index)
	}
}

// chain splits a request into descriptors.
func (q *Queue) chain(t *Ticket) []desc {
	cut := q.setup.Cut
	if cut == 0 {
		cut = 1 << 20
	}
	var chain []desc
	add := func(a mem.Addr, n int, flags uint16) {
		for n > 0 {
			k := min(n, cut)
			chain = append(chain, desc{addr: a, n: uint32(k), flags: flags})
			a, n = a+mem.Addr(k), n-k
		}
	}
	if n := len(t.Out); n > 0 {
		a := q.buffer(t, n)
		copy(q.d.Board.bytes(a, uint64(n)), t.Out)
		add(a, n, 0)
	}
	if t.In > 0 {
		t.room = q.buffer(t, t.In)
		room := q.d.Board.bytes(t.room, uint64(t.In))
		for i := range room {
			room[i] = untouched
		}
		add(t.room, t.In, flagWrite)
	}
	return chain
}

// buffer allocates RAM until t is done.
func (q *Queue) buffer(t *Ticket, n int) mem.Addr {
	q.d.tb.Helper()
	a := q.d.buffers.take(n)
	if a == 0 {
		q.d.tb.Fatal("internal error: no RAM for buffers")
	}
	t.blocks = append(t.blocks, span{a, uint64(n)})
	return a
}

// Room reports whether n more requests fit into the ring in the worst case.
func (q *Queue) Room(n int) bool {
	per := 2
	if q.setup.Indirect {
		per = 1
	} else if q.setup.Cut != 0 {
		per = int(q.Layout.Size) / n
	}
	return q.ring.free() >= n*per
}

// Submit makes a request available.
func (q *Queue) Submit(r Request) *Ticket {
	q.d.tb.Helper()
	t := &Ticket{Request: r}
	chain := q.chain(t)
	if q.setup.Indirect {
		n := 16 * len(chain)
		a := q.buffer(t, n)
		putTable(q.d.Board.bytes(a, uint64(n)), q.Format, chain)
		chain = []desc{{addr: a, n: uint32(n), flags: flagIndirect}}
	}
	if q.ring.free() < len(chain) {
		q.d.tb.Fatalf("internal error: a chain of %d does not fit into the ring", len(chain))
	}
	t.ID = q.ring.add(chain)
	q.flight[t.ID] = t
	return t
}

// Kick notifies the device if it wants that; Notify always does.
func (q *Queue) Kick() {
	if q.ring.wantsKick() {
		q.Notify()
	}
}

// Notify notifies the device.
func (q *Queue) Notify() { q.d.notify(q.index) }

// Collect takes all used chains, and returns how many there were.
func (q *Queue) Collect() int {
	q.d.tb.Helper()
	n := 0
	for {
		id, written, ok := q.ring.used()
		if !ok {
			return n
		}
		t := q.flight[id]
		if t == nil {
			q.d.tb.Fatalf("queue %d: chain %d is used, and was not available", q.index, id)
		}
		delete(q.flight, id)
		t.Done, t.N = true, written
		if err := q.verify(t); err != nil {
			q.d.tb.Fatalf("queue %d: %v", q.index, err)
		}
		for _, b := range t.blocks {
			q.d.buffers.give(b.addr, int(b.n))
		}
		q.Done++
		n++
	}
}

func (q *Queue) verify(t *Ticket) error {
	if uint64(t.N) > uint64(t.In) {
		return fmt.Errorf("%d bytes were written to %d", t.N, t.In)
	}
	if t.Check == nil {
		return nil
	}
	var in []byte
	if t.In > 0 {
		in = bytes.Clone(q.d.Board.bytes(t.room, uint64(t.In)))
	}
	return t.Check(in, t.N)
}

// Wait waits for a request, using only interrupts.
func (q *Queue) Wait(t *Ticket) {
	q.d.tb.Helper()
	signals := q.d.access.signals(q.vector())
	end := time.After(Deadline)
	for {
		q.d.access.handle()
		q.ring.listen(0)
		n := q.Collect()
		if t.Done {
			return
		}
		if n > 0 {
			continue // listen was for what has come already
		}
		select {
		case <-signals.c:
		case <-end:
			q.d.tb.Fatalf("queue %d: no interrupt; status %#x, used %v, %+v", q.index, q.d.Get(Status), q.ring.peek(), q.Format)
		}
	}
}

func (q *Queue) vector() int {
	if q.setup.Shared {
		return 0
	}
	return q.index
}

// Poll waits until n requests in total were answered, without interrupts.
func (q *Queue) Poll(n int) {
	q.d.tb.Helper()
	q.d.until(fmt.Sprintf("%d requests, queue %d", n, q.index), func() bool {
		q.Collect()
		return q.Done >= n
	})
}

// given returns what the device may write: the room of its chains, and the rings.
func (q *Queue) given() []span {
	s := q.ring.device()
	for _, t := range q.flight {
		if t.In > 0 {
			s = append(s, span{t.room, uint64(t.In)})
		}
	}
	return s
}

// Package virtq is the device's side of virtqueues: split (§2.7) and packed
// (§2.8) behind one type, Queue.
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
//
// Everything that is read from guest memory is hostile, and may change between
// two reads: it is read once, then the copy is checked. Every store of ours
// into guest memory is in the methods use, listen and ignore of the two rings,
// but for what devices put into the Writable buffers of a chain between Pop and
// Push. Tracking of dirty pages goes there: the rings mark what they store, and
// Push marks the chain's writable buffers, whose addresses Chain.add sees.
//
// What one side publishes is stored and loaded by sync/atomic. Two places need
// more, a barrier between our store and our load: we ask for a kick and look
// into the ring again; we publish a used buffer and look whether the driver
// wants an interrupt. Go's atomic stores are that barrier, because on amd64
// they are XCHG (and compare-and-swap is LOCK CMPXCHG).
package virtq

import (
	"sync"

	"vmm/mem"
)

// State is how far the device got: all that is left of a stopped queue. In a
// packed ring bit 15 of each is the wrap counter; the state of a fresh one is
// Format.Fresh's.
type State struct{ Avail, Used uint16 }

// Queue is a running virtqueue. Who pops is one goroutine at a time; all other
// methods may be called from any.
//
//	         Stop             last Push
//	running ------> stopping -----------> drained
type Queue struct {
	mem       *mem.Memory
	limit     int // most descriptors of a chain
	keep      int // most buffers that the slices of pooled chains hold
	interrupt func()
	drained   chan struct{}
	counters  *Counters

	mu      sync.Mutex // held for a chain's walk at most, never while interrupt runs
	ring    ring
	err     error // latched
	stopped bool
	held    bool   // see Hold
	owed    []Used // pushed while held
	pending int    // chains popped whose Push has not ended
	pool    []*Chain
	pooled  int // capacity of the slices of pool
	one     [1]Used
}

// A ring is one of the two formats. Its methods are called under Queue.mu.
type ring interface {
	// next takes the next available chain into c, or returns false, or what the
	// driver did wrong.
	next(c *Chain) (bool, error)

	// use makes chains used, all at once for the driver, and says whether it
	// wants an interrupt for them.
	use(batch []Used) bool

	// undo is the opposite of next. It returns false if c is not the last that
	// next took.
	undo(c *Chain) bool

	// retake counts a chain that another ring took and did not use. It returns
	// false if there cannot be one more.
	retake(id, slots uint16) bool

	// listen asks the driver to kick when it makes the next chain available. It
	// returns true if it had not asked before: next must then be tried again,
	// for the driver may not have seen it in time. ignore says that kicks are
	// not needed. Both are advice: kicks may come all the same.
	listen() bool
	ignore()

	state() State
}

// maxChain is how many descriptors a chain may have besides being limited to
// the device's queue size; §2.7.4.1 and §2.8.18 allow a limit. Without it, chains in
// flight could take 24 bytes times the square of the size: 25 GB for 32768. It
// is IOV_MAX, so that a device can pass the buffers on in one system call.
const maxChain = 1024

// Longest says how long a chain may be by way of an indirect table: the "Queue Size
// of the device" (§2.7.5.3.1, §2.8.19), which is the largest that it offers. A driver
// that made its ring smaller, as Linux does where it finds no memory for it, still has
// tables of that length. At first, and for what lies in the ring itself, it is the
// ring's size. It is called before the first Pop.
func (q *Queue) Longest(n int) { q.limit = min(max(q.limit, n), maxChain) }

// New starts a queue that goes on from s. interrupt tells the driver of used
// buffers; Push calls it on its own goroutine, and it may not block. The caller
// must see to it that the queue is popped once, kick or no kick: only a Pop
// that finds nothing asks the driver for kicks.
func New(m *mem.Memory, l Layout, f Format, s State, interrupt func()) (*Queue, error) {
	if err := l.check(f); err != nil {
		return nil, err
	}
	q := &Queue{
		mem:       m,
		limit:     min(int(l.Size), maxChain),
		keep:      32 * int(l.Size),
		interrupt: interrupt,
		drained:   make(chan struct{}),
		counters:  new(Counters),
	}
	var err error
	if f.Packed {
		q.ring, err = newPacked(m, l, f, s)
	} else {
		q.ring, err = newSplit(m, l, f, s)
	}
	if err != nil {
		return nil, err
	}
	return q, nil
}

// Pop returns the next chain, or nil if there is none, the queue is stopped or held
// or the driver broke it. The chain must be pushed.
func (q *Queue) Pop() *Chain {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.idle() {
		return nil
	}
	c := q.take()
	ok, err := q.ring.next(c)
	if !ok && err == nil && q.ring.listen() {
		ok, err = q.ring.next(c)
	}
	if !ok {
		q.err = err
		q.giveBack(c)
		return nil
	}
	q.ring.ignore()
	c.seal()
	q.pending++
	return c
}

// idle says that the ring is not looked at. The caller holds mu.
func (q *Queue) idle() bool { return q.stopped || q.held || q.err != nil }

// A Used is a chain that a device is done with, and how many bytes it wrote to
// Writable, from its front.
type Used struct {
	Chain *Chain
	N     uint32
}

// Push gives c back to the driver, with n bytes written to Writable, from its
// front, and interrupts it if it wants that. The order of pushes need not be
// that of pops. Neither c nor its buffers may be touched afterwards.
func (q *Queue) Push(c *Chain, n uint32) {
	if q.useOne(c, n) {
		q.signal(1)
	}
}

// useOne is use of a batch of one, which would escape to the heap elsewhere.
func (q *Queue) useOne(c *Chain, n uint32) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.one[0] = Used{c, n}
	return q.use(q.one[:])
}

// PushAll is Push of several chains, which the driver sees all at once: such as
// those that one frame of a network was cut into.
func (q *Queue) PushAll(batch []Used) {
	if len(batch) > 0 && q.useAll(batch) {
		q.signal(len(batch))
	}
}

func (q *Queue) useAll(batch []Used) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.use(batch)
}

// use is a push up to the interrupt: it returns whether there must be one. If
// so, the push is pending until it has been made. The caller holds mu.
func (q *Queue) use(batch []Used) bool {
	for _, u := range batch {
		q.own(u.Chain)
		if uint64(u.N) > u.Chain.writable {
			panic("internal error: virtqueue: push of more bytes than fit into the chain")
		}
	}
	if q.held {
		q.keepBack(batch)
		return false
	}
	return q.publish(batch)
}

// publish is use once it has checked. The caller holds mu.
func (q *Queue) publish(batch []Used) bool {
	signal := q.ring.use(batch)
	q.counters.used(batch, signal)
	for _, u := range batch {
		q.giveBack(u.Chain)
	}
	if !signal {
		q.finish(len(batch))
	}
	return signal
}

func (q *Queue) own(c *Chain) {
	switch {
	case c.queue != q:
		panic("internal error: virtqueue: push of another queue's chain")
	case !c.popped:
		panic("internal error: virtqueue: push of a chain that was pushed")
	}
}

// signal interrupts the driver for a push of n chains.
func (q *Queue) signal(n int) {
	q.interrupt()
	q.mu.Lock()
	q.finish(n)
	q.mu.Unlock()
}

// Check looks at the next chain as Pop does, so that Err tells of one that the
// driver broke, but takes nothing: whether the driver kicks stays as it was. It
// is for who has no use for a chain yet.
func (q *Queue) Check() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.idle() {
		return
	}
	c := q.take()
	ok, err := q.ring.next(c)
	if q.err = err; ok && !q.ring.undo(c) {
		panic("internal error: virtqueue: a chain that was just taken cannot be put back")
	}
	q.giveBack(c)
}

// Unpop puts c back as if it had never been popped. It must be the one popped
// last of all that were not put back. Its Pop told the driver that it need not
// kick, though a failed one may have asked for that just before, and Unpop does
// not ask again: so who puts a chain back pops it again without being asked. Who
// only wants to look uses Check.
func (q *Queue) Unpop(c *Chain) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.own(c)
	if !q.ring.undo(c) {
		panic("internal error: virtqueue: unpop of a chain that was not popped last")
	}
	q.giveBack(c)
	q.finish(1)
}

// finish ends what was pending of n chains. The caller holds mu.
func (q *Queue) finish(n int) {
	if q.pending -= n; q.pending == 0 && q.stopped {
		close(q.drained)
	}
}

// Stop makes the queue seem empty, however fast the driver fills it. Chains
// that were popped must still be pushed.
func (q *Queue) Stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped {
		return
	}
	q.stopped = true
	if q.pending == 0 {
		close(q.drained)
	}
}

// Drained returns a channel that is closed once the queue is stopped and every
// popped chain is pushed. From then on the queue neither touches guest memory
// nor interrupts.
func (q *Queue) Drained() <-chan struct{} { return q.drained }

// State returns where to go on from. The queue must be drained.
func (q *Queue) State() State {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.stopped || q.pending > 0 {
		panic("internal error: virtqueue: state of a queue that is not drained")
	}
	return q.ring.state()
}

// Err returns what the driver did wrong, or nil. A queue that it broke stays
// empty; chains popped before can be pushed.
func (q *Queue) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// take returns an empty chain.
func (q *Queue) take() *Chain {
	if len(q.pool) == 0 {
		return &Chain{queue: q}
	}
	last := len(q.pool) - 1
	c := q.pool[last]
	q.pool = q.pool[:last]
	q.pooled -= c.capacity()
	return c
}

// giveBack empties c and keeps it for take. There are never more chains than
// the queue's size, but their slices are as long as the longest chain each
// held: a driver could have us keep size times maxChain buffers by sending one
// long chain after the other, if keep did not end that.
func (q *Queue) giveBack(c *Chain) {
	c.clear(q.pooled+c.capacity() <= q.keep)
	q.pool = append(q.pool, c)
	q.pooled += c.capacity()
}

// Package virtq is the device side of virtqueues: split (§2.7) and packed (§2.8)
// behind one type, Queue.
//
// Section numbers (§) are those of virtio 1.2,
// https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html
//
// Everything read from guest memory is hostile, and may change between two reads: it
// is read once, and the copy is checked. All our stores into guest memory are in the
// methods use, listen and ignore of the two rings, except what devices put into the
// Writable buffers of a chain between Pop and Push. Tracking of dirty pages belongs
// there: the rings mark what they store, and Push marks the chain's writable buffers,
// whose addresses Chain.add sees.
//
// What one side publishes is stored and loaded with sync/atomic. Two places need
// more, a barrier between our store and our load: when we ask for a kick and look
// into the ring again, and when we publish a used buffer and check whether the driver
// wants an interrupt. Go's atomic stores are that barrier: on amd64 they are XCHG
// (and compare-and-swap is LOCK CMPXCHG).
package virtq

import (
	"sync"

	"vmm/mem"
)

// State is how far the device got: all that remains of a stopped queue. In a packed
// ring bit 15 of each is the wrap counter. Format.Fresh returns the state of a fresh
// queue.
type State struct{ Avail, Used uint16 }

// Queue is a running virtqueue. One goroutine at a time may pop; all other methods
// may be called from any.
//
//	         Stop             last Push
//	running ------> stopping -----------> drained
type Queue struct {
	mem       *mem.Memory
	limit     int // most descriptors in a chain
	keep      int // most buffers that the slices of pooled chains hold
	interrupt func()
	drained   chan struct{}
	counters  *Counters

	mu      sync.Mutex // held for one chain's walk at most, never while interrupt runs
	ring    ring
	err     error // latched
	stopped bool
	held    bool   // see Hold
	owed    []Used // pushed while held
	pending int    // chains popped whose Push has not ended
	pool    []*Chain
	pooled  int // capacity of the slices in pool
	one     [1]Used
}

// A ring is one of the two formats. Its methods are called under Queue.mu.
type ring interface {
	// next takes the next available chain into c. It returns false if there is none,
	// and an error if the driver did something wrong.
	next(c *Chain) (bool, error)

	// use marks chains used, all at once for the driver, and reports whether the
	// driver wants an interrupt for them.
	use(batch []Used) bool

	// undo reverses next. It returns false if c is not the last that next took.
	undo(c *Chain) bool

	// retake counts a chain that another ring took and did not use. It returns false
	// if there is no room for one more.
	retake(id, slots uint16) bool

	// listen asks the driver to kick when it makes the next chain available. It
	// returns true if it had not asked before: next must then be tried again, because
	// the driver may not have seen the request in time. ignore says that kicks are
	// not needed. Both are hints: kicks may come anyway.
	listen() bool
	ignore()

	state() State
}

// maxChain limits the descriptors of a chain, in addition to the device's queue size;
// §2.7.4.1 and §2.8.18 allow a limit. Without it, chains in flight could take 24
// bytes times the square of the size: 25 GB for 32768. It is IOV_MAX, so that a
// device can pass the buffers on in one system call.
const maxChain = 1024

// Longest sets how long a chain may be with an indirect table: the "Queue Size of the
// device" (§2.7.5.3.1, §2.8.19), which is the largest that it offers. A driver that
// made its ring smaller, as Linux does when it lacks memory, still has tables of that
// length. The default, and the limit for descriptors in the ring itself, is the
// ring's size. It is called before the first Pop.
func (q *Queue) Longest(n int) { q.limit = min(max(q.limit, n), maxChain) }

// New starts a queue that continues from s. interrupt tells the driver of used
// buffers; Push calls it on its own goroutine, and it must not block. The caller must
// make sure that the queue is popped once, kick or no kick: only a Pop that finds
// nothing asks the driver for kicks.
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

// Pop returns the next chain. It returns nil if there is none, the queue is stopped
// or held, or the driver broke it. The chain must be pushed.
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

// idle reports whether the ring must not be read. The caller holds mu.
func (q *Queue) idle() bool { return q.stopped || q.held || q.err != nil }

// A Used is a chain that a device has finished with, and how many bytes it wrote to
// the front of Writable.
type Used struct {
	Chain *Chain
	N     uint32
}

// Push gives c back to the driver, with n bytes written to the front of Writable, and
// interrupts the driver if it wants that. Chains may be pushed in any order. Neither
// c nor its buffers may be touched afterwards.
func (q *Queue) Push(c *Chain, n uint32) {
	if q.useOne(c, n) {
		q.signal(1)
	}
}

// useOne is use of a batch of one, which would otherwise escape to the heap.
func (q *Queue) useOne(c *Chain, n uint32) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.one[0] = Used{c, n}
	return q.use(q.one[:])
}

// PushAll is Push of several chains, which the driver sees all at once: for example,
// those that one network frame was split into.
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

// use is a push without the interrupt. It returns whether an interrupt is needed. If
// so, the push is pending until the interrupt has been raised. The caller holds mu.
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

// publish is use without the checks. The caller holds mu.
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

// Check looks at the next chain as Pop does, so that Err reports one that the driver
// broke, but takes nothing: whether the driver kicks does not change. It is for a
// device that has no use for a chain yet.
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

// Unpop puts c back as if it had never been popped. It must be the last popped of all
// chains that were not put back. Its Pop told the driver not to kick, though a failed
// one may have asked for a kick just before, and Unpop does not ask again: a caller
// that puts a chain back must pop it again without a kick. A caller that only wants
// to look uses Check.
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

// finish ends n pending chains. The caller holds mu.
func (q *Queue) finish(n int) {
	if q.pending -= n; q.pending == 0 && q.stopped {
		close(q.drained)
	}
}

// Stop makes the queue seem empty, however fast the driver fills it. Popped chains
// must still be pushed.
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

// State returns where to continue. The queue must be drained.
func (q *Queue) State() State {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.stopped || q.pending > 0 {
		panic("internal error: virtqueue: state of a queue that is not drained")
	}
	return q.ring.state()
}

// Err returns what the driver did wrong, or nil. A queue that the driver broke stays
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

// giveBack empties c and keeps it for take. There are never more chains than the
// queue's size, but their slices are as long as the longest chain each held. Without
// keep, a driver could make us keep size times maxChain buffers by sending one long
// chain after the other.
func (q *Queue) giveBack(c *Chain) {
	c.clear(q.pooled+c.capacity() <= q.keep)
	q.pool = append(q.pool, c)
	q.pooled += c.capacity()
}

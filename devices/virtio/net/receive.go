package net

import (
	"sync"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
	"vmm/ethernet"
)

// maxVector is how many buffers a link is given at once, not counting overflow, which
// takes the rest of a frame. Linux takes 1024 in one system call.
const maxVector = 1000

// receiver moves frames from the link to one queue, §5.1.6.4.
//
// The length of the next frame is not known before it is read. So as many chains are
// popped as the last frame took, and the link fills those and, after them, overflow.
// If overflow was used, the frame waits in pending until enough chains are popped. If
// not, which is usual, nothing is copied. Popped chains that were not needed are put
// back.
type receiver struct {
	d    *Device
	pair int
	counters

	mu        sync.Mutex
	q         *virtq.Queue // nil: no queue is served
	host      virtio.Host
	mergeable bool
	starved   bool   // the guest has no room, and the link waits for Resume
	want      int    // expected bytes of the next frame
	held      []held // popped, and neither pushed nor put back, in order
	room      int    // bytes in them for a frame
	header    ethernet.Header
	bufs      [][]byte // what the link fills, and overflow
	fits      int      // bytes of bufs without overflow
	pending   []byte   // a frame, with header, that there is no room for
	overflow  []byte
	used      []virtq.Used
}

// held is a popped chain. The first has the room for the header cut off.
type held struct {
	chain  *virtq.Chain
	room   int      // bytes left in it
	header [][]byte // nil: not cut off
}

func (r *receiver) start(features uint64, h virtio.Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.host, r.mergeable = h, features&featureMergeable != 0
	if r.overflow == nil {
		r.overflow = make([]byte, ethernet.MaxFrame)
	}
}

func (r *receiver) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.q, r.host, r.starved = nil, nil, false
}

// reset drops the frame that the previous driver had no room for.
func (r *receiver) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = r.pending[:0]
}

// serve is called when the guest has added room.
func (r *receiver) serve(q *virtq.Queue) {
	if r.relieve(q) {
		r.d.link.Resume(r.pair)
	}
}

// relieve runs on the queue's goroutine. It reports whether it ended starved. The
// link may set starved until the lock is taken, so it is read and cleared under one
// hold of the lock.
func (r *receiver) relieve(q *virtq.Queue) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.q = q
	starved := r.starved
	return r.run() && starved
}

// readable runs on the link's goroutine.
func (r *receiver) readable() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.run()
}

// run moves frames until none are left, or no room is left: then it returns false.
// The caller holds mu.
func (r *receiver) run() bool {
	if r.q == nil {
		r.starved = true
		return false
	}
	r.starved = !r.move()
	for i := len(r.held) - 1; i >= 0; i-- {
		r.q.Unpop(r.held[i].chain)
	}
	r.held, r.room = r.held[:0], 0
	if r.q.Err() != nil && r.host != nil {
		r.host.Wake(2 * r.pair) // its goroutine breaks the device
	}
	return !r.starved
}

// move is run without the cleanup: chains may stay in held.
func (r *receiver) move() bool {
	for {
		if len(r.pending) > 0 {
			if !r.flush() {
				return false
			}
			continue
		}
		if !r.pop(r.want) {
			return false
		}
		r.gather()
		n, err := r.d.link.Receive(r.pair, &r.header, r.bufs)
		if err != nil {
			return true
		}
		r.place(n)
	}
}

// pop makes sure that there is room for a header, and for n bytes after it if the
// guest has that much. It returns false if there is no room even for the header.
func (r *receiver) pop(n int) bool {
	for {
		if len(r.held) > 0 && r.held[0].header == nil && !r.cut() {
			continue // another chain is now first
		}
		if len(r.held) > 0 && (r.room >= n || !r.mergeable) {
			return true
		}
		c := r.q.Pop()
		if c == nil {
			return len(r.held) > 0
		}
		h := held{chain: c, room: int(c.WritableLen())}
		r.held, r.room = append(r.held, h), r.room+h.room
	}
}

// cut cuts the header off the first chain. A chain that has no room for it is given
// back.
func (r *receiver) cut() bool {
	h := &r.held[0]
	h.header = h.chain.CutFirst(ethernet.HeaderSize)
	if h.header == nil {
		r.errors.Add(1)
		r.q.Push(h.chain, 0)
		r.drop(1)
		return false
	}
	h.room -= ethernet.HeaderSize
	r.room -= ethernet.HeaderSize
	return true
}

// drop removes the first k chains.
func (r *receiver) drop(k int) {
	for _, h := range r.held[:k] {
		r.room -= h.room
	}
	r.held = r.held[:copy(r.held, r.held[k:])]
}

// gather fills bufs from the held chains.
func (r *receiver) gather() {
	r.bufs, r.fits = r.bufs[:0], 0
	for _, h := range r.held {
		for _, b := range h.chain.Writable {
			if len(r.bufs) == maxVector {
				break
			}
			r.bufs = append(r.bufs, b)
			r.fits += len(b)
		}
	}
	r.bufs = append(r.bufs, r.overflow)
}

// place gives the guest the n-byte frame in bufs.
func (r *receiver) place(n int) {
	n = min(n, ethernet.MaxFrame)
	var dst ethernet.MAC
	copyOut(dst[:], r.bufs)
	if n < ethernet.HeaderLen || !r.d.up.Load() || !r.d.filter.pass(dst) {
		r.dropped.Add(1)
		return
	}
	r.want = max(n, r.want-r.want/8)
	if n <= r.fits {
		r.push(n)
		return
	}
	if cap(r.pending) < n {
		r.pending = make([]byte, ethernet.MaxFrame)
	}
	r.pending = r.pending[:n]
	copyOut(r.pending, r.bufs)
}

// flush gives the guest the frame in pending. It returns false if there is no room.
func (r *receiver) flush() bool {
	n := len(r.pending)
	if !r.pop(n) {
		return false
	}
	switch {
	case r.room >= n:
		left := r.pending
		for _, h := range r.held {
			for _, b := range h.chain.Writable {
				left = left[copy(b, left):]
			}
		}
		r.push(n)
	case r.mergeable:
		return false
	default:
		r.dropped.Add(1) // larger than the buffers of a driver that does not merge
	}
	r.pending = r.pending[:0]
	return true
}

// push gives the guest the n-byte frame in the first chains.
func (r *receiver) push(n int) {
	r.used = r.used[:0]
	for left, i := n, 0; left > 0; i++ {
		h := &r.held[i]
		k := min(left, h.room)
		left -= k
		if i == 0 {
			k += ethernet.HeaderSize
		}
		r.used = append(r.used, virtq.Used{Chain: h.chain, N: uint32(k)})
	}
	r.header.SetBuffers(uint16(len(r.used)))
	left := r.header[:]
	for _, b := range r.held[0].header {
		left = left[copy(b, left):]
	}
	r.count(n) // before the guest can see the frame
	r.q.PushAll(r.used)
	r.drop(len(r.used))
}

// copyOut fills p from the front of bufs.
func copyOut(p []byte, bufs [][]byte) {
	for _, b := range bufs {
		if p = p[copy(p, b):]; len(p) == 0 {
			return
		}
	}
}

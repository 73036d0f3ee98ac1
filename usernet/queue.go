package usernet

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"vmm/ethernet"
)

// Bounds of the queue to the guest, against one that opens connections to fast servers
// and receives nothing. Frames beyond them are lost, as on any wire.
const (
	maxFrames      = 4096
	maxFramesBytes = 32 << 20
)

// queue holds frames for the guest, and tells it to receive them.
//
//	           push                      pop by Readable,
//	empty ------------> pump calls ------------------------> empty
//	                    Readable   --> false: asleep --Resume--> pump
//
// It keeps frames that come between stop and start, for a paused guest. Only pump calls
// Readable, with no lock held.
type queue struct {
	wake chan struct{} // for pump; holds one
	done chan struct{}

	receiving sync.Mutex  // held by receive, before mu
	cut       cutter      // guarded by receiving
	partial   atomic.Bool // cut has more: a rate limit may have stopped within a packet

	mu      sync.Mutex
	idle    sync.Cond                      // pump has left Readable
	guest   ethernet.Guest                 // guarded by mu, as is all below; nil: stopped
	drops   bool                           // drops frames until start
	frames  [maxFrames]*stack.PacketBuffer // a ring
	first   int
	n       int
	bytes   int
	asleep  bool // Readable returned false
	calling bool // pump is in Readable
	closed  bool
}

func newQueue() *queue {
	q := &queue{wake: make(chan struct{}, 1), done: make(chan struct{}), drops: true}
	q.idle.L = &q.mu
	return q
}

// push takes its own reference to pkt, and returns false if there is no room. Netstack
// calls it, with any of its locks held.
func (q *queue) push(pkt *stack.PacketBuffer) bool {
	size := pkt.Size()
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.drops:
		return true
	case q.n == maxFrames || q.bytes+size > maxFramesBytes:
		return false
	}
	q.frames[(q.first+q.n)%maxFrames] = pkt.IncRef()
	q.n++
	q.bytes += size
	q.signal()
	return true
}

// signal wakes pump. The caller holds mu.
func (q *queue) signal() {
	if q.asleep || q.calling {
		return // Resume or pump itself will check
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// pop returns the next frame, with its reference, or nil.
func (q *queue) pop() *stack.PacketBuffer {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.popLocked()
}

func (q *queue) popLocked() *stack.PacketBuffer {
	if q.n == 0 {
		return nil
	}
	pkt := q.frames[q.first]
	q.frames[q.first] = nil
	q.first = (q.first + 1) % maxFrames
	q.n--
	q.bytes -= pkt.Size()
	return pkt
}

// pump calls Readable until close.
func (q *queue) pump() {
	for {
		select {
		case <-q.done:
			return
		case <-q.wake:
		}
		for q.call() {
		}
	}
}

// call calls Readable if needed.
func (q *queue) call() bool {
	q.mu.Lock()
	g := q.guest
	if g == nil || q.asleep || q.n == 0 && !q.partial.Load() {
		q.mu.Unlock()
		return false
	}
	q.calling, q.asleep = true, true // resume may clear asleep meanwhile
	q.mu.Unlock()

	more := false
	defer func() { // also after a panic, or stop would wait forever
		q.mu.Lock()
		defer q.mu.Unlock()
		q.calling = false
		q.asleep = q.asleep && !more
		q.idle.Broadcast()
	}()
	more = g.Readable(0)
	return true
}

func (q *queue) resume() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asleep = false
	q.signal()
}

func (q *queue) start(g ethernet.Guest) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.guest, q.asleep, q.drops = g, false, false
		q.signal()
	}
}

// stop waits for a running Readable.
func (q *queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.guest = nil
	for q.calling {
		q.idle.Wait()
	}
	q.asleep = false
}

// discard drops all frames, and those that come before start.
func (q *queue) discard() {
	q.mu.Lock()
	q.drops = true
	for pkt := q.popLocked(); pkt != nil; pkt = q.popLocked() {
		pkt.DecRef()
	}
	q.mu.Unlock()

	q.receiving.Lock()
	defer q.receiving.Unlock()
	q.cut.drop()
	q.partial.Store(false)
}

func (q *queue) close() {
	q.stop()
	q.discard()
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.done)
	}
}

// receive is Network.Receive, for a guest that takes offload.
func (q *queue) receive(h *ethernet.Header, bufs [][]byte, offload ethernet.Offload) (int, error) {
	q.receiving.Lock()
	defer q.receiving.Unlock()
	if !q.cut.more() {
		pkt := q.pop()
		if pkt == nil {
			return 0, ethernet.ErrAgain
		}
		if !mustCut(pkt, offload) {
			n := whole(pkt, h, bufs)
			pkt.DecRef()
			return n, nil
		}
		q.cut.load(pkt)
	}
	n := q.cut.next(h, bufs, offload)
	q.partial.Store(q.cut.more())
	return n, nil
}

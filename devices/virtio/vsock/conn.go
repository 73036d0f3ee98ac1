package vsock

import (
	"time"

	"vmm/stream"
)

// conn is one connection. Guarded by Device.mu.
//
//	a host call                       a guest request
//	        |                                 |
//	        v            RESPONSE             v
//	      calling ------------------------> open
//	        |                                 |
//	        | RST, limit       both directions have ended, a mistake
//	        v                                 v
//	    forgotten <---------------------- ending (RST to the guest)
//
// A forgotten connection may still have a backlog for the host: it drains.
type conn struct {
	d     *Device
	key   key
	host  stream.Conn // nil: closed
	state state
	known bool // it is in Device.conns

	next   *conn // in Device.ready
	queued bool

	// What to tell the guest.
	answer bool   // REQUEST or RESPONSE
	credit bool   // CREDIT_UPDATE, because it asked
	shut   uint32 // what we will no longer do
	told   uint32 // the part of shut that the guest knows

	readable bool // the host may have something
	ended    bool // the host sends no more
	gone     bool // the host no longer reads, either
	want     int  // bytes to read at once
	sent     uint32
	peer     struct{ alloc, forward, shut uint32 } // what the guest said last

	backlog  backlog
	received uint32 // from the guest
	forward  uint32 // part of received that was passed on
	granted  uint32 // forward as the guest knows it

	limit *time.Timer
	due   time.Duration // in the guest's time
	round int           // which of the timers is valid
}

type state int

const (
	calling state = iota
	open
	ending
)

// Bytes to read at once: as many as were available last time, or more.
const (
	minWant = 4 << 10
	maxWant = 128 << 10
)

func (d *Device) newConn(k key, s state) *conn {
	c := &conn{d: d, key: k, state: s, known: true, want: minWant, readable: true, answer: true}
	c.backlog.size = smallBuffer
	if d.count < largeConns {
		c.backlog.size = largeBuffer
	}
	d.conns[k] = c
	d.count++
	return c
}

// forget removes c from what the guest knows.
func (d *Device) forget(c *conn) {
	c.stopTimer()
	if c.known {
		c.known = false
		delete(d.conns, c.key)
		d.settle(c)
	}
}

// closeHost closes the host's side, and drops what it did not take.
func (d *Device) closeHost(c *conn) {
	if c.host == nil {
		return
	}
	c.host.Close()
	c.host = nil
	c.discard()
	d.settle(c)
}

// settle stops counting a connection that is over for both sides.
func (d *Device) settle(c *conn) {
	if !c.known && c.host == nil {
		d.count--
	}
}

// abort ends c because of a mistake, or because the host failed.
func (d *Device) abort(c *conn) {
	d.closeHost(c)
	d.end(c)
}

// end sends the guest a reset, the last packet it gets.
func (d *Device) end(c *conn) {
	c.state = ending
	c.stopTimer()
	d.ready.add(c)
}

// discard drops the backlog, as if the host had taken it.
func (c *conn) discard() {
	c.backlog.drop(c.backlog.n)
	c.forward = c.received
}

// room returns how many bytes the guest has room for, §5.10.6.3. A guest that claims
// impossible values has none.
func (c *conn) room() uint32 {
	if flying := c.sent - c.peer.forward; flying < c.peer.alloc {
		return c.peer.alloc - flying
	}
	return 0
}

// canRead reports whether there may be bytes to move to the guest.
func (c *conn) canRead() bool {
	return c.state == open && c.readable && c.host != nil && c.peer.shut&shutReceive == 0 && c.room() > 0
}

// mustGrant reports whether to tell the guest its credit: it asked, or it could send
// less than half the buffer and a quarter more is free.
func (c *conn) mustGrant() bool {
	size := uint32(c.backlog.size)
	return c.state == open && (c.credit || c.received-c.granted > size/2 && c.forward-c.granted >= size/4)
}

// mustShut reports whether to tell the guest of an end.
func (c *conn) mustShut() bool { return c.state == open && c.shut != c.told }

// pending reports whether there is something for the guest.
func (c *conn) pending() bool {
	return c.known && (c.answer || c.state == ending || c.mustShut() || c.canRead() || c.mustGrant())
}

// Ready implements stream.Watcher. It runs on the host's goroutine.
func (c *conn) Ready(e stream.Event) {
	d := c.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.host == nil {
		return
	}
	if e&stream.Gone != 0 {
		c.gone, c.readable = true, true
		if c.ended || c.peer.shut&shutReceive != 0 {
			d.leave(c, shutBoth)
		}
	}
	if e&stream.Readable != 0 {
		c.readable = true
	}
	if e&stream.Writable != 0 {
		d.flush(c)
	}
	d.ready.add(c)
	d.continues(d.move(hostTurns))
}

// leave records what we will no longer do. Once we do nothing, the host is done.
func (d *Device) leave(c *conn, what uint32) {
	c.shut |= what
	if c.shut&shutReceive != 0 {
		c.discard()
	}
	if c.shut == shutBoth {
		d.closeHost(c)
	}
	d.ready.add(c)
}

// startTimer makes c expire after limit of the guest's time, unless startTimer or
// stopTimer is called first.
func (c *conn) startTimer(limit time.Duration) {
	c.stopTimer()
	c.due = c.d.time() + limit
	c.wait(limit)
}

// wait makes expire run after d.
func (c *conn) wait(d time.Duration) {
	round := c.round
	c.limit = c.d.Owner.AfterFunc(d, func() { c.d.expire(c, round) })
}

func (c *conn) stopTimer() {
	c.round++
	if c.limit != nil {
		c.limit.Stop()
	}
}

// time returns how long the guest has run, not counting pauses.
func (d *Device) time() time.Duration {
	if d.guest == nil {
		return d.ran
	}
	return d.ran + time.Since(d.since)
}

// expire ends a connection if the guest has not done its part in time. While the
// guest is paused, its time stands still.
func (d *Device) expire(c *conn, round int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := c.due - d.time()
	switch {
	case round != c.round: // it just did its part
		return
	case d.guest == nil:
		c.wait(requestLimit) // and check again; the guest may then be late by as much
		return
	case left > 0:
		c.wait(left)
		return
	case c.answer: // it has no buffer even for the call
		d.closeHost(c)
		d.forget(c)
		return
	}
	d.abort(c)
	d.continues(d.move(hostTurns))
}

// list holds the connections that have something for the guest, in order of their
// turns. A connection that no longer has anything leaves when its turn comes.
type list struct{ first, last *conn }

// add appends c, unless it is already queued.
func (l *list) add(c *conn) {
	if c.queued || !c.pending() {
		return
	}
	c.queued = true
	if l.last == nil {
		l.first = c
	} else {
		l.last.next = c
	}
	l.last = c
}

func (l *list) pop() *conn {
	c := l.first
	if l.first = c.next; l.first == nil {
		l.last = nil
	}
	c.next, c.queued = nil, false
	return c
}

// putBack undoes pop, unless c was added meanwhile.
func (l *list) putBack(c *conn) {
	if c.queued {
		return
	}
	c.queued, c.next = true, l.first
	if l.first = c; l.last == nil {
		l.last = c
	}
}

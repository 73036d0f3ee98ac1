package vsock

import (
	"io"

	"vmm/devices/virtio/virtq"
	"vmm/stream"
)

// How many turns a goroutine takes at once. The rest is for the receive queue's
// goroutine. A turn is up to maxWant bytes.
const (
	hostTurns  = 4 // on the host's goroutine
	guestTurns = 1 // after a guest packet
	queueTurns = 4 // on the queue's, before others get the lock
)

// maxHeld is how many guest buffers one turn fills. Linux's buffers have room for 4
// KiB, those of older versions for less.
const maxHeld = 64

// held is a popped guest buffer.
type held struct {
	chain  *virtq.Chain
	header [][]byte
	room   int
}

// replies is a ring of resets that belong to no connection.
type replies struct {
	p     [maxReplies]packet
	first int
	n     int
}

func (r *replies) full() bool { return r.n == len(r.p) }

func (r *replies) add(p packet) {
	r.p[(r.first+r.n)%len(r.p)] = p
	r.n++
}

// receive is called when the guest has added buffers.
func (d *Device) receive(q *virtq.Queue) {
	for d.receiveSome(q) {
	}
}

// receiveSome reports whether there is more to do.
func (d *Device) receiveSome(q *virtq.Queue) (more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rx = q
	if more = d.move(queueTurns); !more {
		q.Check() // nothing goes into it yet, but it may be broken
	}
	return more
}

// continues makes the receive queue's goroutine continue if there is more.
func (d *Device) continues(more bool) {
	if more && d.guest != nil {
		d.guest.Wake(queueReceive)
	}
}

// move gives the guest what is ready for it, as far as it has buffers, in at most
// turns turns. It reports whether there is more to do. The caller holds mu.
func (d *Device) move(turns int) (more bool) {
	if d.rx == nil {
		return false
	}
	fed := d.answer()
	d.push()
	for ; fed && turns > 0 && d.ready.first != nil; turns-- {
		c := d.ready.pop()
		if fed = d.turn(c); !fed {
			d.ready.putBack(c)
		}
		d.ready.add(c)
		d.push()
	}
	if d.rx.Err() != nil {
		d.guest.Wake(queueReceive) // its goroutine breaks the device
		return false
	}
	if d.again && !d.reply.full() {
		d.again = false
		d.guest.Wake(queueTransmit)
	}
	return fed && d.ready.first != nil
}

// push gives the guest the packets made for it.
func (d *Device) push() {
	d.rx.PushAll(d.used)
	d.used = d.used[:0]
}

// answer sends the replies. It returns false if the guest has no more buffers.
func (d *Device) answer() bool {
	r := &d.reply
	for r.n > 0 {
		if !d.emit(&r.p[r.first]) {
			return false
		}
		r.first, r.n = (r.first+1)%len(r.p), r.n-1
	}
	return true
}

// turn gives the guest some of what c has for it. It returns false if the guest has
// no more buffers.
func (d *Device) turn(c *conn) bool {
	switch {
	case !c.known:
		return true
	case c.state == ending:
		if !d.send(c, opReset, 0) {
			return false
		}
		d.forget(c)
		return true
	case c.answer:
		op := uint16(opResponse)
		if c.state == calling {
			op = opRequest
		}
		if !d.send(c, op, 0) {
			return false
		}
		c.answer = false
	}
	if c.canRead() && !d.read(c) {
		return false
	}
	if c.mustShut() {
		shut := c.shut
		if !d.send(c, opShutdown, shut) {
			return false
		}
		if c.told = shut; shut == shutBoth {
			c.startTimer(closeLimit)
		}
	}
	return !c.mustGrant() || d.send(c, opCreditUpdate, 0)
}

// head returns the header of a packet of c. It tells the guest its credit.
func (d *Device) head(c *conn, op uint16, flags uint32, n int) packet {
	c.granted, c.credit = c.forward, false
	return packet{
		srcCID: hostCID, dstCID: d.cid, srcPort: c.key.host, dstPort: c.key.guest,
		len: uint32(n), kind: typeStream, op: op, flags: flags,
		bufAlloc: uint32(c.backlog.size), fwdCnt: c.forward,
	}
}

// send sends a packet without data. It returns false if the guest has no buffer.
func (d *Device) send(c *conn, op uint16, flags uint32) bool {
	granted, credit := c.granted, c.credit
	p := d.head(c, op, flags, 0)
	if d.emit(&p) {
		return true
	}
	c.granted, c.credit = granted, credit
	return false
}

// emit fills a guest buffer with a header.
func (d *Device) emit(p *packet) bool {
	for range maxHeld {
		h, ok := d.pop()
		if !ok {
			return false
		}
		if h.header != nil {
			h.use(d, p, 0)
			return true
		}
		d.rx.Push(h.chain, 0)
	}
	d.guest.Wake(queueReceive) // others must have their turn
	return false
}

// pop returns the guest's next buffer. A buffer too short for a header has none, and
// is useless.
func (d *Device) pop() (h held, ok bool) {
	c := d.rx.Pop()
	if c == nil {
		return held{}, false
	}
	h = held{chain: c, room: int(c.WritableLen()) - headerSize}
	h.header = c.CutFirst(headerSize)
	return h, true
}

// use makes h a packet with n bytes of data.
func (h *held) use(d *Device, p *packet, n int) {
	var b [headerSize]byte
	p.encode(&b)
	left := b[:]
	for _, part := range h.header {
		left = left[copy(part, left):]
	}
	d.used = append(d.used, virtq.Used{Chain: h.chain, N: uint32(headerSize + n)})
}

// read moves bytes from the host's socket into the guest's buffers. It returns false
// if there are no buffers.
func (d *Device) read(c *conn) bool {
	want := min(c.want, int(c.room()))
	if !d.hold(want) {
		return false
	}
	asked := d.gather(want)
	n, err := 0, error(nil)
	if asked > 0 {
		n, err = c.host.Read(d.bufs)
	}
	left, i := n, 0
	for ; left > 0; i++ {
		h := &d.held[i]
		k := min(left, h.room)
		p := d.head(c, opData, 0, k)
		h.use(d, &p, k)
		left -= k
	}
	for k := len(d.held) - 1; k >= i; k-- {
		d.rx.Unpop(d.held[k].chain)
	}
	c.sent += uint32(n)
	clear(d.bufs)
	switch {
	case err == stream.ErrAgain:
		c.readable = false
	case err == io.EOF:
		c.readable, c.ended = false, true
		what := uint32(shutSend)
		if c.gone {
			what = shutBoth
		}
		d.leave(c, what)
	case err != nil:
		d.abort(c)
	case n == asked:
		c.want = min(4*c.want, maxWant)
	default:
		c.want = max(n, minWant)
	}
	return true
}

// hold pops buffers with room for n bytes, or as many as exist. Buffers without room
// for data are given back.
func (d *Device) hold(n int) bool {
	d.held = d.held[:0]
	for range maxHeld {
		h, ok := d.pop()
		switch {
		case !ok:
			return len(d.held) > 0
		case h.room <= 0:
			if len(d.held) > 0 { // it cannot be put back later
				d.rx.Unpop(h.chain)
				return true
			}
			d.rx.Push(h.chain, 0)
			continue
		}
		d.held = append(d.held, h)
		if n -= h.room; n <= 0 {
			return true
		}
	}
	return true
}

// gather collects up to n bytes of held buffers in bufs, and returns how many.
func (d *Device) gather(n int) (total int) {
	d.bufs = d.bufs[:0]
	for _, h := range d.held {
		for _, b := range h.chain.Writable {
			if n == total {
				return total
			}
			b = b[:min(len(b), n-total)]
			d.bufs = append(d.bufs, b)
			total += len(b)
		}
	}
	return total
}

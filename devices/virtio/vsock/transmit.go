package vsock

import (
	"vmm/devices/virtio/virtq"
	"vmm/stream"
)

// sentBatch is how many packets at most are given back at once: a quarter of the
// queue, so that the driver can continue.
const sentBatch = queueSize / 4

// transmit takes the guest's packets. If too many need an answer for which the guest
// has no buffers, it stops: move makes it run again.
func (d *Device) transmit(q *virtq.Queue) {
	sent, more := d.sent[:0], false
	for c := q.Pop(); c != nil; c = q.Pop() {
		var taken bool
		if taken, more = d.transmitOne(c); !taken {
			q.Unpop(c)
			break
		}
		if sent = append(sent, virtq.Used{Chain: c}); len(sent) == cap(sent) {
			q.PushAll(sent)
			sent = sent[:0]
		}
	}
	q.PushAll(sent)
	if !more {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.continues(more)
}

// transmitOne takes a packet, if there is room for an answer, and moves a little of
// what is ready for the guest; more reports that there is more.
func (d *Device) transmitOne(c *virtq.Chain) (taken, more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken = d.take(c)
	return taken, taken && d.move(guestTurns)
}

// take handles one guest packet. It returns false if there is no room for an answer.
func (d *Device) take(c *virtq.Chain) bool {
	if d.reply.full() {
		d.again = true
		return false
	}
	var b [headerSize]byte
	var p packet
	if !c.ReadFull(b[:]) {
		return true
	}
	p.decode(&b)
	if p.srcCID != d.cid {
		return true // §5.10.6.4: an answer would have no addressee
	}
	conn := d.conns[key{p.dstPort, p.srcPort}]
	switch {
	case p.kind != typeStream || p.dstCID != hostCID:
		d.refuse(&p)
	case conn != nil:
		d.handle(conn, &p, c)
	case p.op == opRequest:
		d.request(&p)
	default:
		d.refuse(&p)
	}
	return true
}

// refuse answers a packet of an unknown connection with a reset, §5.10.6.5, unless
// the packet is a reset.
func (d *Device) refuse(p *packet) {
	if p.op != opReset {
		d.reply.add(p.reset())
	}
}

// request connects the guest to a host program.
func (d *Device) request(p *packet) {
	if d.count >= MaxConns {
		d.refuse(p)
		return
	}
	c := d.newConn(key{p.dstPort, p.srcPort}, open)
	host, err := d.host.Dial(p.dstPort, c)
	if err != nil {
		d.forget(c)
		d.refuse(p)
		return
	}
	c.host = host
	c.peer.alloc, c.peer.forward = p.bufAlloc, p.fwdCnt
	d.ready.add(c)
}

// handle handles a packet of a connection. An invalid packet ends it.
func (d *Device) handle(c *conn, p *packet, chain *virtq.Chain) {
	if p.op == opReset {
		if c.state != ending { // else it may still drain
			d.closeHost(c)
		}
		d.forget(c)
		return
	}
	if c.state == ending {
		return
	}
	c.peer.alloc, c.peer.forward = p.bufAlloc, p.fwdCnt
	switch {
	case c.state == calling && p.op == opResponse && !c.answer:
		c.state = open
		c.stopTimer()
		c.host.Accept(c.key.host)
	case c.state != open:
		d.abort(c)
	case p.op == opData:
		d.data(c, p.len, chain)
	case p.op == opShutdown:
		d.shutdown(c, p.flags&shutBoth)
	case p.op == opCreditRequest:
		c.credit = true
	case p.op != opCreditUpdate:
		d.abort(c)
	}
	d.ready.add(c)
}

// data takes n bytes for the host. It is a mistake to send more than was granted, to
// claim more than the packet has, or to send after the end of the guest's direction.
func (d *Device) data(c *conn, n uint32, chain *virtq.Chain) {
	free := uint32(c.backlog.size - c.backlog.n)
	if n > free || c.peer.shut&shutSend != 0 || !d.collect(chain, n) {
		d.abort(c)
		return
	}
	c.received += n
	if c.host == nil || c.shut&shutReceive != 0 {
		c.discard() // the guest may not know yet
		return
	}
	done := 0
	if c.backlog.n == 0 && n > 0 {
		var ok bool
		if done, ok = d.write(c); !ok {
			return
		}
	}
	if uint32(done) < n {
		c.backlog.add(d.bufs, done)
	}
	clear(d.bufs)
}

// collect gathers the n bytes of data of a chain in bufs. The chain may have more
// (§5.10.6). It returns false if it has fewer.
func (d *Device) collect(chain *virtq.Chain, n uint32) bool {
	d.bufs = d.bufs[:0]
	left := uint64(n)
	for _, b := range chain.Readable {
		if left == 0 {
			break
		}
		b = b[:min(uint64(len(b)), left)]
		d.bufs = append(d.bufs, b)
		left -= uint64(len(b))
	}
	return left == 0
}

// write gives the host what is in bufs. It returns how much the host took, or false
// if the host takes no more.
func (d *Device) write(c *conn) (n int, ok bool) {
	n, err := c.host.Write(d.bufs)
	if err != nil && err != stream.ErrAgain {
		d.leave(c, shutReceive) // the other direction may continue
		return 0, false
	}
	c.forward += uint32(n)
	return n, true
}

// flush gives the host the backlog.
func (d *Device) flush(c *conn) {
	for c.backlog.n > 0 {
		d.bufs = c.backlog.front(d.bufs[:0])
		n, ok := d.write(c)
		clear(d.bufs)
		if !ok {
			break
		}
		all := n == c.backlog.n
		c.backlog.drop(n)
		if !all {
			return
		}
	}
	d.flushed(c)
}

// flushed is called when the host has all that the guest has sent: then the guest's
// end is passed on to the host.
func (d *Device) flushed(c *conn) {
	switch {
	case c.host == nil || c.backlog.n > 0:
	case !c.known || c.state == ending || c.peer.shut == shutBoth:
		d.closeHost(c)
	case c.peer.shut&shutSend != 0:
		c.host.CloseWrite()
	}
}

// shutdown records what the guest will never do again (§5.10.6.5). Once it does
// nothing, its ports are free at once, though the host may not have read everything
// yet.
func (d *Device) shutdown(c *conn, what uint32) {
	what |= c.peer.shut
	news := what &^ c.peer.shut
	c.peer.shut = what
	if what == shutBoth {
		d.end(c)
	} else if news&shutReceive != 0 && c.host != nil {
		c.host.CloseRead()
		if c.gone {
			d.leave(c, shutBoth)
		}
	}
	if what == shutBoth || news&shutSend != 0 {
		d.flushed(c)
	}
}

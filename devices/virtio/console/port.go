package console

import (
	"context"
	"fmt"
	"sync"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
)

const (
	// inputSize bounds what is read ahead of the guest, including inserted bytes.
	inputSize   = 4 << 10
	maxInserted = 64
	// outputSize bounds what the guest has written ahead of the host. Twice as much
	// exists while the host takes the rest. Anything beyond stays in the queue, and
	// the guest waits: no byte is lost, and we hold up no vCPU.
	outputSize = 32 << 10
)

// port is one stream of bytes each way.
//
// Its goroutines last as long as there is something to do: one writes to the host
// while there is output; one reads from the host while the guest would take input.
// Only host calls block, so a stop of the device does not wait for them; the
// goroutines touch no guest memory.
type port struct {
	d       *Device
	index   int
	stream  Stream
	control control // guarded by Device.mu

	mu        sync.Mutex
	idle      sync.Cond   // signalled when sending ends
	host      virtio.Host // guarded by mu, as is all below; nil: stopped
	open      bool        // the guest takes input: a program has the port open
	awaited   bool        // assume open once the guest writes
	sized     bool        // the driver wants to know the size
	notice    virtio.Notice
	input     []byte       // for the guest
	buf       []byte       // the array behind input
	receiving bool         // a goroutine is reading
	ended     bool         // the host's input has ended
	output    []byte       // for the host
	spare     []byte       // replaces output while that is written
	sending   bool         // a goroutine is writing
	full      bool         // the queue waits for room in output
	queue     *virtq.Queue // the output queue, as last served
	skip      uint64       // bytes of its next chain that are already in output
	absent    bool         // the host's end is not connected
	closed    bool
	err       error // of the host's end: what the guest writes is dropped
}

func newPort(d *Device, i int, s Stream) *port {
	p := &port{d: d, index: i, stream: s, buf: make([]byte, inputSize-maxInserted)}
	p.idle.L = &p.mu
	return p
}

// queueIn and queueOut return the indexes of the port's queues, §5.3.2.
func (p *port) queueIn() int {
	if p.index == 0 {
		return 0
	}
	return 2 + 2*p.index
}

func (p *port) queueOut() int { return p.queueIn() + 1 }

// start continues where stop, or reset, left off.
func (p *port) start(h virtio.Host, features uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.host, p.full, p.queue = h, false, nil
	multiport := features&featureMultiport != 0
	p.awaited, p.sized = !multiport && p.stream.Await, features&featureSize != 0
	p.notice.Due = p.notice.Due && p.tellable()
	p.notice.Start(h)
	p.open = p.open || !multiport && !p.stream.Await
}

// tellable reports whether the driver may be told the size. Linux does not read it at
// its start, but only when told to. If told before its port exists, it never reads
// it. The caller holds mu.
func (p *port) tellable() bool { return p.sized && (p.open || !p.awaited) }

// resized tells the driver that the size has changed, if it may be told.
func (p *port) resized() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.host == nil || p.tellable() {
		p.notice.Changed()
	}
}

func (p *port) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.host = nil
	p.notice.Stop()
}

// reset forgets the queue state, but loses no byte.
func (p *port) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open, p.sized, p.skip, p.full = false, false, 0, false
	p.notice.Reset()
}

// setOpen sets whether the guest takes input.
func (p *port) setOpen(open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = open
	if open && p.host != nil {
		p.host.Wake(p.queueIn())
	}
}

// receiveQueue moves input to the guest.
func (p *port) receiveQueue(q *virtq.Queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.open && len(p.input) > 0 {
		c := q.Pop()
		if c == nil {
			return
		}
		n := c.Write(p.input)
		p.input = p.input[n:]
		q.Push(c, uint32(n))
	}
	p.fetch()
}

// fetch starts a read of the host's input once the guest has taken everything: this
// is the back-pressure. The caller holds mu.
func (p *port) fetch() {
	if p.open && p.host != nil && len(p.input) == 0 && !p.receiving && !p.ended && p.stream.In != nil {
		p.receiving = true
		p.d.Owner.Go(p.receive)
	}
}

// receive reads once. It may block for as long as no input comes.
func (p *port) receive() {
	n, err := p.stream.In.Read(p.buf) // buf is ours while input is not in it
	p.mu.Lock()
	defer p.mu.Unlock()
	p.receiving = false
	p.ended = err != nil // usually EOF: the guest continues without input
	if len(p.input) == 0 {
		p.input = p.buf[:n]
	} else {
		p.input = append(p.input, p.buf[:n]...) // after what was inserted meanwhile
	}
	if p.host != nil {
		p.host.Wake(p.queueIn())
	}
}

// insert adds a byte to the input, if there is room.
func (p *port) insert(v byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.input) >= inputSize || p.receiving && len(p.input) >= maxInserted {
		return
	}
	p.input = append(append(make([]byte, 0, len(p.input)+1), p.input...), v) // not in buf
	if p.host != nil {
		p.host.Wake(p.queueIn())
	}
}

// transmitQueue takes what the guest writes. Without room it stays in the queue, and
// send makes transmitQueue run again.
func (p *port) transmitQueue(q *virtq.Queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queue != nil && p.queue != q {
		p.skip = 0 // the driver has reset the queue: this is a new one
	}
	p.queue = q
	for {
		if p.room() == 0 {
			p.full = true
			return
		}
		c := q.Pop()
		if c == nil {
			return
		}
		if !p.take(c) {
			p.full = true
			q.Unpop(c)
			return
		}
		p.skip = 0
		q.Push(c, 0)
		if p.awaited && !p.open {
			p.open = true
			p.host.Wake(p.queueIn())
			if p.tellable() {
				p.notice.Changed()
			}
		}
	}
}

// drops reports whether output is discarded. The caller holds mu.
func (p *port) drops() bool { return p.stream.Out == nil || p.err != nil || p.closed }

// room returns how many more bytes output may hold. The caller holds mu.
func (p *port) room() int {
	if p.drops() {
		return outputSize
	}
	return outputSize - len(p.output)
}

// take copies a chain to the output, and reports whether it copied all of it. The
// caller holds mu.
func (p *port) take(c *virtq.Chain) bool {
	if p.drops() {
		return true
	}
	skip := p.skip
	for _, b := range c.Readable {
		if skip >= uint64(len(b)) {
			skip -= uint64(len(b))
			continue
		}
		b = b[skip:]
		skip = 0
		n := min(len(b), p.room())
		p.put(b[:n])
		p.skip += uint64(n)
		if n < len(b) {
			return false
		}
	}
	return true
}

// put appends b to the output, which must have room, and starts sending it. The
// caller holds mu.
func (p *port) put(b []byte) {
	if len(b) == 0 {
		return
	}
	if p.output == nil {
		p.output = make([]byte, 0, outputSize)
	}
	p.output = append(p.output, b...)
	if !p.sending {
		p.sending = true
		p.d.Owner.Go(p.send)
	}
}

// print is put for a byte that cannot wait: without room it is lost.
func (p *port) print(v byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.drops() && p.room() > 0 {
		p.put([]byte{v})
	}
}

// send writes output to the host until none is left.
func (p *port) send() {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		p.sending = false
		p.idle.Broadcast()
	}()
	for len(p.output) > 0 {
		b := p.output
		p.output, p.spare = p.spare[:0], nil
		p.relieve()
		err := p.write(b)
		p.spare = b[:0]
		if err != nil && p.err == nil {
			// A reader that has gone away must not stop the guest.
			p.err = fmt.Errorf("virtio console port %d: %w", p.index, err)
			p.output = p.output[:0]
			p.relieve()
		}
	}
}

// write gives b to the host. It releases the caller's lock meanwhile.
func (p *port) write(b []byte) error {
	p.mu.Unlock()
	defer p.mu.Lock() // also for a panic on its way to the caller's unlock
	_, err := p.stream.Out.Write(b)
	return err
}

// relieve wakes the output queue if it waits for room. The caller holds mu.
func (p *port) relieve() {
	if p.full && p.host != nil {
		p.full = false
		p.host.Wake(p.queueOut())
	}
}

// connect sets whether the host's end is connected, and reports whether that is a
// change.
func (p *port) connect(connected bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := p.absent == connected
	p.absent = !connected
	p.idle.Broadcast()
	return news
}

// connected reports whether the host's end is connected.
func (p *port) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.absent
}

// close waits until the host has all output, or ctx is done. It does not wait for the
// host's end to connect.
func (p *port) close(ctx context.Context) error {
	defer p.d.Owner.ContextFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.idle.Broadcast()
	})()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.sending && !p.absent && ctx.Err() == nil {
		p.idle.Wait()
	}
	p.closed = true
	switch {
	case p.err != nil || !p.sending:
		return p.err
	case ctx.Err() != nil:
		return fmt.Errorf("virtio console port %d: %w", p.index, context.Cause(ctx))
	}
	return fmt.Errorf("virtio console port %d: nobody is there for what the guest wrote last", p.index)
}

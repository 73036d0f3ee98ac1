package console

import (
	"context"
	"fmt"
	"sync"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtq"
)

const (
	// inputSize bounds what is read ahead of the guest, with what is inserted.
	inputSize   = 4 << 10
	maxInserted = 64
	// outputSize bounds what the guest has written ahead of the host. Twice as
	// much exists while the host takes the rest. What is more stays in the queue,
	// and the guest waits: no byte is lost, and no vCPU is held by us.
	outputSize = 32 << 10
)

// port is one stream of bytes each way.
//
// Its goroutines last as long as there is something to do: one that writes to
// the host, while there is output; one that reads from it, while the guest would
// take input. What blocks is the host's, so a stop of the device does not wait
// for them; they touch no guest memory.
type port struct {
	d       *Device
	index   int
	stream  Stream
	control control // guarded by Device.mu

	mu        sync.Mutex
	idle      sync.Cond   // of sending
	host      virtio.Host // guarded by mu, as is all below; nil: stopped
	open      bool        // the guest takes input: a program has the port open
	awaited   bool        // it is taken to, once it writes
	sized     bool        // the driver wants to know the size
	notice    virtio.Notice
	input     []byte       // for the guest
	buf       []byte       // what input is a slice of
	receiving bool         // there is a goroutine that reads
	ended     bool         // the host's input is at its end
	output    []byte       // for the host
	spare     []byte       // takes the place of output while that is written
	sending   bool         // there is a goroutine that writes
	full      bool         // the queue waits for room in output
	queue     *virtq.Queue // the queue of output, as it was served last
	skip      uint64       // bytes of its next chain that are in output
	absent    bool         // nobody is at the host's end
	closed    bool
	err       error // of the host's end: what the guest writes is dropped
}

func newPort(d *Device, i int, s Stream) *port {
	p := &port{d: d, index: i, stream: s, buf: make([]byte, inputSize-maxInserted)}
	p.idle.L = &p.mu
	return p
}

// queueIn and queueOut are the port's queues, §5.3.2.
func (p *port) queueIn() int {
	if p.index == 0 {
		return 0
	}
	return 2 + 2*p.index
}

func (p *port) queueOut() int { return p.queueIn() + 1 }

// start goes on where stop, or reset, has left off.
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

// tellable says whether the driver may be told of the size. Linux does not look at
// it at its start, but only when it is told to; and not too early, for before its
// port is there that is the end of it. The caller holds mu.
func (p *port) tellable() bool { return p.sized && (p.open || !p.awaited) }

// resized says that the size has changed.
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

// reset forgets the queue, but no byte.
func (p *port) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open, p.sized, p.skip, p.full = false, false, 0, false
	p.notice.Reset()
}

// setOpen says whether the guest takes input.
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

// fetch has the host's input read once the guest has all of it: that is the
// back-pressure. The caller holds mu.
func (p *port) fetch() {
	if p.open && p.host != nil && len(p.input) == 0 && !p.receiving && !p.ended && p.stream.In != nil {
		p.receiving = true
		p.d.Owner.Go(p.receive)
	}
}

// receive reads once. It may take as long as nobody types.
func (p *port) receive() {
	n, err := p.stream.In.Read(p.buf) // no one else's while input is not in it
	p.mu.Lock()
	defer p.mu.Unlock()
	p.receiving = false
	p.ended = err != nil // most often EOF: the guest goes on without input
	if len(p.input) == 0 {
		p.input = p.buf[:n]
	} else {
		p.input = append(p.input, p.buf[:n]...) // behind what was inserted meanwhile
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

// transmitQueue takes what the guest writes. Without room it stays in the queue,
// and send brings us here again.
func (p *port) transmitQueue(q *virtq.Queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queue != nil && p.queue != q {
		p.skip = 0 // the driver has reset the queue: it is another
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

// drops says that nobody takes output. The caller holds mu.
func (p *port) drops() bool { return p.stream.Out == nil || p.err != nil || p.closed }

// room is how many bytes of output there may still be. The caller holds mu.
func (p *port) room() int {
	if p.drops() {
		return outputSize
	}
	return outputSize - len(p.output)
}

// take copies a chain to the output, and returns whether that was all of it. The
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

// put adds to the output, for which there is room, and has it sent. The caller
// holds mu.
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

// print is put for a byte that cannot wait: if there is no room it is lost.
func (p *port) print(v byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.drops() && p.room() > 0 {
		p.put([]byte{v})
	}
}

// send writes output to the host until there is none.
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
			// A reader that went away must not stop the guest.
			p.err = fmt.Errorf("virtio console port %d: %w", p.index, err)
			p.output = p.output[:0]
			p.relieve()
		}
	}
}

// write gives b to the host, without the lock that the caller holds.
func (p *port) write(b []byte) error {
	p.mu.Unlock()
	defer p.mu.Lock() // also for a panic on its way to who unlocks
	_, err := p.stream.Out.Write(b)
	return err
}

// relieve says that there is room for output. The caller holds mu.
func (p *port) relieve() {
	if p.full && p.host != nil {
		p.full = false
		p.host.Wake(p.queueOut())
	}
}

// connect says whether there is somebody at the host's end, and returns whether
// that is news.
func (p *port) connect(connected bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := p.absent == connected
	p.absent = !connected
	p.idle.Broadcast()
	return news
}

// connected says whether there is somebody at the host's end.
func (p *port) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.absent
}

// close waits until the host has all output, or ctx is done. It does not wait for
// somebody to come.
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

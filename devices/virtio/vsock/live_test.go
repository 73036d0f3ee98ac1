package vsock

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"vmm/eventfd"
	"vmm/hostsock"
)

// live is a guest whose queues are served as a transport does it, with real sockets
// behind the device. One goroutine is the guest's driver.
type live struct {
	t     testing.TB
	path  string
	d     *Device
	host  *hostsock.Host
	rings [3]*ring
	kicks [3]*eventfd.FD
	irq   *eventfd.FD
	work  sync.WaitGroup

	// Owned by the driver's goroutine.
	socks map[key]*sock
	takes func(*sock) // a call from the host; nil refuses
}

// sock is a guest's socket: arriving data goes to receive, and out is sent.
type sock struct {
	k          key
	out        []byte // to be sent
	sent       uint32
	alloc, fwd uint32 // the device's
	read, told uint32 // ours: what was read, and how much of that the device knows
	last       bool   // nothing follows what is in out
	shut       bool   // and the device knows it
	receive    func(*sock, []byte)
	ended      func(*sock) // the host sends no more
}

const liveAlloc = 256 << 10

func (l *live) Wake(queue int) { l.kicks[queue].Signal() }
func (*live) ConfigChanged()   {}

func newLive(t testing.TB) *live {
	t.Helper()
	dir, err := os.MkdirTemp("", "vs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &live{t: t, path: filepath.Join(dir, "s"), socks: map[key]*sock{}}
	if l.host, err = hostsock.New(l.path, nil, nil); err != nil {
		t.Fatal(err)
	}
	l.d = New(guestCID, l.host)
	if l.irq, err = eventfd.New(); err != nil {
		t.Fatal(err)
	}
	l.rings = newRings(t, l.irq.Signal)
	for _, r := range l.rings {
		r.noIRQ.Store(1) // except in wait
	}
	for i := range l.kicks {
		if l.kicks[i], err = eventfd.New(); err != nil {
			t.Fatal(err)
		}
		l.kicks[i].Start()
	}
	for range ringSize {
		l.rings[0].add(bufferSize)
	}
	if err := l.d.Start(0, l); err != nil {
		t.Fatal(err)
	}
	for i := range l.kicks {
		l.work.Go(func() {
			for l.kicks[i].Wait() == nil {
				l.d.Serve(i, l.rings[i].q)
			}
		})
	}
	t.Cleanup(l.close)
	return l
}

func (l *live) close() {
	for i, k := range l.kicks {
		l.rings[i].q.Stop()
		k.Stop()
	}
	l.work.Wait()
	l.d.Stop()
	l.d.Reset()
	if err := l.host.Close(); err != nil {
		l.t.Error(err)
	}
	for _, k := range append(l.kicks[:], l.irq) {
		k.Close()
	}
}

// kick notifies the device of a queue, if it wants to be.
func (l *live) kick(queue int) {
	if l.rings[queue].noKick.Load() == 0 {
		l.Wake(queue)
	}
}

// wait waits until the device has used a buffer of a ring, or for any interrupt.
func (l *live) wait(r *ring) {
	r.noIRQ.Store(0)
	if r.usedIdx.Load() == r.got {
		l.irq.Wait()
	}
	r.noIRQ.Store(1)
}

// drive runs the driver until done returns true. It calls done after each event.
func (l *live) drive(done func() bool) {
	for !done() {
		l.wait(l.rings[queueReceive])
		for l.collect() > 0 {
		}
		for _, s := range l.socks {
			l.send(s)
		}
	}
}

// collect takes the packets that arrived, and gives their buffers back.
func (l *live) collect() (n int) {
	rx := l.rings[queueReceive]
	for b, ok := rx.used(); ok; b, ok = rx.used() {
		var p packet
		p.decode((*[headerSize]byte)(b))
		l.handle(&p, b[headerSize:])
		rx.add(bufferSize)
		n++
	}
	if n > 0 {
		l.kick(queueReceive)
	}
	return n
}

func (l *live) handle(p *packet, data []byte) {
	k := key{p.srcPort, p.dstPort}
	s := l.socks[k]
	switch {
	case s == nil && p.op == opRequest && l.takes != nil:
		s = &sock{k: k}
		l.socks[k] = s
		l.takes(s)
		l.put(s, opResponse, 0, nil)
	case s == nil:
		if p.op != opReset {
			l.put(&sock{k: k}, opReset, 0, nil)
		}
		return
	}
	s.alloc, s.fwd = p.bufAlloc, p.fwdCnt
	switch p.op {
	case opReset:
		delete(l.socks, k)
		if s.ended != nil {
			s.ended(s)
		}
	case opData:
		s.receive(s, data)
		if s.read += uint32(len(data)); s.read-s.told > liveAlloc/2 {
			l.put(s, opCreditUpdate, 0, nil)
		}
	case opShutdown:
		if s.ended != nil {
			s.ended(s)
		}
		if p.flags == shutBoth {
			l.put(s, opReset, 0, nil)
			delete(l.socks, k)
		}
	}
}

// send sends what may be sent.
func (l *live) send(s *sock) {
	for len(s.out) > 0 {
		n := min(len(s.out), packetSize-headerSize, int(s.alloc-(s.sent-s.fwd)))
		if n == 0 {
			return
		}
		l.put(s, opData, 0, s.out[:n])
		s.out, s.sent = s.out[n:], s.sent+uint32(n)
	}
	if s.last && !s.shut {
		s.shut = true
		l.put(s, opShutdown, shutSend, nil)
	}
}

// put sends a packet, when there is room.
func (l *live) put(s *sock, op uint16, flags uint32, data []byte) {
	tx := l.rings[queueTransmit]
	for tx.room() == 0 {
		if _, ok := tx.used(); !ok {
			l.wait(tx)
			defer l.irq.Signal() // the interrupt may have been for received packets
		}
	}
	s.told = s.read
	tx.addPacket(packet{
		srcCID: guestCID, dstCID: hostCID, srcPort: s.k.guest, dstPort: s.k.host, len: uint32(len(data)),
		kind: typeStream, op: op, flags: flags, bufAlloc: liveAlloc, fwdCnt: s.read,
	}, data)
	l.kick(queueTransmit)
}

package vsock

import (
	"fmt"
	"testing"

	"vmm/stream"
)

// TestBadPackets: an invalid packet costs the connection, or nothing.
func TestBadPackets(t *testing.T) {
	const drop, reset, fine = "dropped", "reset", "fine"
	for _, test := range []struct {
		name string
		edit func(p *packet)
		data int
		want string
	}{
		{"another source", func(p *packet) { p.srcCID = strangerCID }, 0, drop},
		{"bits above the source", func(p *packet) { p.srcCID |= 1 << 32 }, 0, drop},
		{"another destination", func(p *packet) { p.dstCID = strangerCID }, 0, reset},
		{"seqpacket", func(p *packet) { p.kind = 2 }, 0, reset},
		{"no type", func(p *packet) { p.kind = 0 }, 0, reset},
		{"no operation", func(p *packet) { p.op = 0 }, 0, reset},
		{"unknown operation", func(p *packet) { p.op = 8 }, 0, reset},
		{"a second request", func(p *packet) { p.op = opRequest }, 0, reset},
		{"a response that nobody waits for", func(p *packet) { p.op = opResponse }, 0, reset},
		{"less data than said", func(p *packet) { p.op, p.len = opData, 11 }, 10, reset},
		{"more data than said", func(p *packet) { p.op, p.len = opData, 9 }, 10, fine},
		{"the largest length", func(p *packet) { p.op, p.len = opData, 1<<32-1 }, 10, reset},
		{"no data", func(p *packet) { p.op, p.len = opData, 0 }, 0, fine},
		{"a shutdown of nothing", func(p *packet) { p.op = opShutdown }, 0, fine},
		{"a shutdown of something unknown", func(p *packet) { p.op, p.flags = opShutdown, ^uint32(shutBoth) }, 0, fine},
	} {
		both(t, func(t *testing.T, d *driver, s *socket) {
			p := s.header(opCreditUpdate, 0, 0)
			test.edit(&p)
			d.put(p, make([]byte, test.data))
			if test.want == reset {
				r, _ := d.expect(opReset)
				if r.kind != p.kind || p.dstCID == hostCID && r.srcPort != s.host || r.dstPort != s.guest {
					t.Errorf("%s: %+v", test.name, r)
				}
			}
			d.quiet()
			if dead := s.pipe.state().closed; dead != (test.want == reset && p.kind == typeStream && p.dstCID == hostCID) {
				t.Errorf("%s: closed %v", test.name, dead)
			}
		})
	}
}

// TestShortPackets: a packet shorter than a header is ignored.
func TestShortPackets(t *testing.T) {
	d := newDriver(t, ringSize)
	for n := range headerSize {
		d.tx.add(n)
		d.Wake(queueTransmit)
		d.run()
		if b, ok := d.tx.used(); !ok || len(b) != 0 {
			t.Errorf("%d bytes: %x, %v", n, b, ok)
		}
	}
	d.quiet()
	d.over()
}

// TestEnded: after the end of a connection only a reset follows. Data after the end of a
// direction is an error.
func TestEnded(t *testing.T) {
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.put(opShutdown, shutSend, nil)
		s.put(opData, 0, []byte("x"))
		d.expect(opReset)
		d.over()
		s.put(opData, 0, []byte("x"))
		d.expect(opReset)
		s.put(opReset, 0, nil)
		d.quiet()
	})
	d := newDriver(t, ringSize)
	for _, op := range []uint16{opRequest, opShutdown, opData, opCreditUpdate, opCreditRequest, 0, 99} { // instead of an answer
		p := d.h.call(22)
		request, _ := d.expect(opRequest)
		s := &socket{d: d, host: request.srcPort, guest: 22}
		s.put(op, 0, nil)
		d.expect(opReset)
		if !p.state().closed {
			t.Errorf("open after %d", op)
		}
	}
	d.over()
}

// TestReplies: a guest that gives no buffers cannot make the device hold any number of
// answers: the transmit queue waits.
func TestReplies(t *testing.T) {
	d := newDriver(t, 0)
	send := func() (sent int) {
		for ; d.tx.room() > 0; sent++ {
			d.tx.addPacket(packet{srcCID: guestCID, dstCID: hostCID, srcPort: uint32(sent), dstPort: 1, kind: typeStream, op: opData}, nil)
		}
		d.Wake(queueTransmit)
		d.run()
		for _, ok := d.tx.used(); ok; _, ok = d.tx.used() {
		}
		return sent
	}
	total := 0
	for range 10 * maxReplies / ringSize {
		total += send()
	}
	if want := maxReplies + ringSize; total != want || d.tx.room() != 0 {
		t.Errorf("%d packets were taken, want %d", total, want)
	}
	answers := 0
	for answers < total {
		d.give(10)
		before := answers
		for p, _, ok := d.take(); ok; p, _, ok = d.take() {
			if p.op != opReset {
				t.Fatalf("%+v", p)
			}
			answers++
		}
		if answers == before {
			break
		}
	}
	for _, ok := d.tx.used(); ok; _, ok = d.tx.used() {
	}
	if answers != total || d.tx.room() != ringSize {
		t.Errorf("%d answers to %d packets, %d are free", answers, total, d.tx.room())
	}
}

// TestMany: no more connections than allowed, whichever side makes them, and room again
// when some have ended.
func TestMany(t *testing.T) {
	d := newDriver(t, ringSize)
	var all []*socket
	for i := range MaxConns {
		if i%2 == 0 {
			all = append(all, d.dial())
		} else {
			all = append(all, d.listen())
		}
	}
	for i, s := range all {
		s.pipe.put(fmt.Appendf(nil, "to %d", i))
		s.put(opData, 0, fmt.Appendf(nil, "of %d", i))
		if got, want := string(s.receive()), fmt.Sprintf("to %d", i); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got, want := s.pipe.state().out, fmt.Sprintf("of %d", i); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if d.h.call(22) != nil {
		t.Error("one more call")
	}
	s := &socket{d: d, host: 80, guest: 1, alloc: 1}
	s.put(opRequest, 0, nil)
	d.expect(opReset)
	all[0].put(opReset, 0, nil)
	s.put(opRequest, 0, nil)
	d.expect(opResponse)
	s.put(opReset, 0, nil)
	for _, s := range all[1:] {
		s.pipe.leave()
		d.expect(opShutdown)
		s.put(opReset, 0, nil)
	}
	d.over()
}

// TestFairness: an endless stream does not keep another stream from its turn.
func TestFairness(t *testing.T) {
	d := newDriver(t, ringSize)
	endless, other := d.dial(), d.dial()
	endless.alloc = 1 << 31
	endless.put(opCreditUpdate, 0, nil)
	endless.pipe.change(func() { endless.pipe.endless = true }, stream.Readable)
	other.pipe.change(func() { other.pipe.in = []byte("x") }, stream.Readable)
	for range 3 * ringSize {
		p, _, ok := d.take()
		if !ok {
			t.Fatal("no more of a stream without end")
		}
		if p.dstPort == other.guest {
			return
		}
		d.give(1)
	}
	t.Error("the other has no turn")
}

// FuzzPackets lets a guest and the host do anything in any order. Nothing panics, no
// more is sent than was granted, and after a reset nothing is left.
func FuzzPackets(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 3, 0, 0, 0, 4, 0, 5, 0, 10, 0, 8, 0, 0, 0, 0})
	f.Add([]byte{6, 0, 0, 0, 0, 0, 2, 1, 0, 0, 2, 0, 5, 1, 200, 7, 0, 0, 0, 0, 3, 0, 4, 1, 3})
	f.Add([]byte{0, 1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 5, 0, 9, 9, 5, 0, 0, 9, 9, 0, 4, 0, 3, 0, 5, 0, 0, 255, 255, 1, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		d := newDriver(t, 3)
		d.h.listen[80], d.h.listen[81] = true, true
		alloc := map[key]uint32{}
		sent := map[key]uint32{}
		for ; len(script) >= 5; script = script[5:] {
			fuzzStep(d, [5]byte(script), alloc)
			for p, data, ok := d.take(); ok; p, data, ok = d.take() {
				k := key{p.srcPort, p.dstPort}
				if p.op == opRequest || p.op == opResponse {
					sent[k] = 0
				}
				if sent[k] += uint32(len(data)); sent[k] > alloc[k] {
					t.Fatalf("%d bytes, and the guest has room for %d", sent[k], alloc[k])
				}
			}
		}
		d.d.Stop()
		d.d.Reset()
		for _, p := range d.h.pipes { // pipes that still drain
			p.leave()
		}
		d.over()
	})
}

// fuzzStep does one thing. The guest never tells what it reads, so the device may send
// at most the largest room that the guest has announced.
func fuzzStep(d *driver, s [5]byte, alloc map[key]uint32) {
	p := packet{
		srcCID: guestCID, dstCID: hostCID, srcPort: uint32(s[1] >> 5), dstPort: 80 + uint32(s[1]>>4&1), kind: typeStream,
		op: uint16(s[2] % 10), flags: uint32(s[3]), len: uint32(s[3])<<4 | uint32(s[4]&15), bufAlloc: uint32(s[4]) << 6,
	}
	if s[1]&8 != 0 {
		p.srcPort, p.dstPort = 22, firstPort+uint32(s[1]&7)
	}
	var pipe *pipe
	if n := len(d.h.pipes); n > 0 {
		pipe = d.h.pipes[int(s[1])%n]
	}
	switch what := s[0] % 10; {
	case what < 4 && d.tx.room() == 0: // they wait for buffers to be answered with
	case what < 4:
		k := key{p.dstPort, p.srcPort}
		alloc[k] = max(alloc[k], p.bufAlloc)
		d.put(p, make([]byte, min(int(p.len), 5000)))
	case what == 4:
		d.give(min(int(s[3]%8), d.rx.room()))
	case what == 5:
		d.h.call(22)
	case pipe == nil:
	case what == 6:
		pipe.put(make([]byte, 10*int(s[3])))
	case what == 7:
		pipe.end()
	case what == 8:
		pipe.change(func() { pipe.room = int(s[3]) }, stream.Writable)
	default:
		pipe.leave()
	}
	d.run()
}

package vsock

import (
	"bytes"
	"fmt"
	"testing"
)

// TestSlowGuest: the device sends no more bytes than the guest has room for, and the
// rest as the guest reads. Another connection does not wait.
func TestSlowGuest(t *testing.T) {
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.alloc = 5000
		s.put(opCreditUpdate, 0, nil)
		all := pattern(23_456)
		s.pipe.put(all)
		var got []byte
		for len(got) < len(all) {
			more := s.receive()
			if len(more) == 0 || len(more) > int(s.alloc) {
				t.Fatalf("%d bytes for a room of %d", len(more), s.alloc)
			}
			got = append(got, more...)
			other := d.dial()
			other.pipe.put([]byte("not stalled"))
			if b := other.receive(); string(b) != "not stalled" {
				t.Errorf("%q", b)
			}
			s.read += uint32(len(more))
			s.put(opCreditUpdate, 0, nil)
		}
		if !bytes.Equal(got, all) {
			t.Error("not what was sent")
		}
		// A guest that shrinks its buffer, or lies, has no room.
		for _, bad := range []struct{ alloc, read uint32 }{{0, s.read}, {5000, s.read + 1}, {5000, s.read - 5000}} {
			s.alloc, s.read = bad.alloc, bad.read
			s.put(opCreditUpdate, 0, nil)
			s.pipe.put([]byte("x"))
			d.quiet()
			s.read = uint32(len(all))
		}
	})
}

// TestSlowHost: data that the host does not read stays in the device, up to the granted
// credit. The guest is told when there is room. Another connection does not wait.
func TestSlowHost(t *testing.T) {
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.pipe.change(func() { s.pipe.room = 1000 }, 0)
		all := pattern(largeBuffer + 1000)
		for sent := 0; sent < len(all); {
			n := min(len(all)-sent, 60_000)
			s.put(opData, 0, all[sent:sent+n])
			sent += n
			d.quiet() // no credit while nothing is read
			other := d.dial()
			other.put(opData, 0, []byte("not stalled"))
			if got := other.pipe.state().out; got != "not stalled" {
				t.Errorf("%q", got)
			}
			other.put(opReset, 0, nil)
		}
		if got := s.pipe.state().length; got != 1000 {
			t.Errorf("the host has %d bytes", got)
		}
		s.pipe.read(100_000)
		s.pipe.read(100_000)
		if p, _ := d.expect(opCreditUpdate); p.bufAlloc != largeBuffer || p.fwdCnt < largeBuffer/4 {
			t.Errorf("%+v", p)
		}
		s.pipe.read(1 << 20)
		if got := s.pipe.state().out; got != string(all) {
			t.Errorf("the host has %d bytes, want %d", len(got), len(all))
		}
		s.put(opCreditRequest, 0, nil)
		p, _ := d.expect(opCreditUpdate)
		for p.fwdCnt != uint32(len(all)) {
			p, _ = d.expect(opCreditUpdate)
		}
		s.put(opReset, 0, nil)
		d.over()
	})
}

// TestTooMuch: a guest that sends more than its credit is cut off.
func TestTooMuch(t *testing.T) {
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.pipe.change(func() { s.pipe.room = 0 }, 0)
		for range largeBuffer / (64 << 10) {
			s.put(opData, 0, pattern(64<<10))
		}
		d.quiet()
		s.put(opData, 0, []byte{1})
		d.expect(opReset)
		d.over()
	})
}

// TestDrain: a guest that is done is released at once, and the host still gets all data.
func TestDrain(t *testing.T) {
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.pipe.change(func() { s.pipe.room = 10 }, 0)
		all := pattern(60_000)
		s.put(opData, 0, all)
		s.put(opShutdown, shutBoth, nil)
		d.expect(opReset)
		if err := d.counts(1, 1); err != nil {
			t.Error(err)
		}
		again := *s // the ports are free
		d.h.listen[again.host] = true
		again.put(opRequest, 0, nil)
		d.expect(opResponse)
		again.put(opReset, 0, nil)
		s.pipe.read(20_000)
		s.pipe.read(50_000)
		if got := s.pipe.state(); got.out != string(all) || !got.closed {
			t.Errorf("%d bytes, closed %v", len(got.out), got.closed)
		}
		d.over()
	})
}

// TestDrainImpatient: a guest is done, has no buffer for the answer, and resets the
// connection. The host still gets all data.
func TestDrainImpatient(t *testing.T) {
	d := newDriver(t, 1)
	s := d.dial()
	s.pipe.change(func() { s.pipe.room = 10 }, 0)
	s.put(opCreditRequest, 0, nil) // its answer takes the only buffer
	s.put(opData, 0, pattern(1000))
	s.put(opShutdown, shutBoth, nil)
	s.put(opReset, 0, nil)
	s.pipe.read(2000)
	if got := s.pipe.state(); got.out != string(pattern(1000)) || !got.closed {
		t.Errorf("%d bytes, closed %v", len(got.out), got.closed)
	}
	d.over()
}

// TestFewBuffers: everything works with one buffer at a time, of any size.
func TestFewBuffers(t *testing.T) {
	for _, size := range []int{headerSize + 1, headerSize + 1000, bufferSize} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			d := newDriver(t, 0)
			one := func() (p packet, data []byte) {
				t.Helper()
				d.rx.add(size)
				d.Wake(queueReceive)
				d.run()
				p, data, ok := d.take()
				if !ok {
					t.Fatal("no packet")
				}
				d.quiet()
				return p, data
			}
			d.h.listen[80] = true
			s := &socket{d: d, host: 80, guest: 1, alloc: 1 << 20}
			s.put(opRequest, 0, nil)
			s.pipe = d.h.pipes[0]
			if p, _ := one(); p.op != opResponse {
				t.Errorf("%+v", p)
			}
			all := pattern(3 * size)
			s.pipe.put(all)
			s.pipe.end()
			var got []byte
			for {
				p, data := one()
				if p.op == opShutdown {
					break
				}
				got = append(got, data...)
			}
			if !bytes.Equal(got, all) {
				t.Errorf("%d bytes, want %d", len(got), len(all))
			}
			s.put(opShutdown, shutBoth, nil)
			if p, _ := one(); p.op != opReset {
				t.Errorf("%+v", p)
			}
			d.over()
		})
	}
}

// TestShortBuffers: buffers without room for a packet are returned, and break nothing.
func TestShortBuffers(t *testing.T) {
	d := newDriver(t, 0)
	for i := range 3 * ringSize {
		d.rx.add(i % (headerSize + 1))
		d.Wake(queueReceive)
		d.run()
		s := &socket{d: d, host: 80, guest: 1}
		s.put(opData, 0, nil) // answered by a reset
		for b, ok := d.rx.used(); ok; b, ok = d.rx.used() {
			if n := len(b); n != 0 && n != headerSize {
				t.Errorf("a packet of %d bytes", n)
			}
		}
	}
	d = newDriver(t, 0)
	s := d.dialShort()
	s.pipe.put([]byte("x"))
	for range 3 {
		d.rx.add(headerSize) // large enough for all but data
	}
	d.Wake(queueReceive)
	d.run()
	for b, ok := d.rx.used(); ok; b, ok = d.rx.used() {
		if len(b) != 0 {
			t.Errorf("a packet of %d bytes", len(b))
		}
	}
	d.give(1)
	if _, data, ok := d.take(); !ok || string(data) != "x" {
		t.Errorf("%q, %v", data, ok)
	}
}

// dialShort is dial for a device that has no buffers.
func (d *driver) dialShort() *socket {
	d.h.listen[80] = true
	s := &socket{d: d, host: 80, guest: 7, alloc: 1000}
	s.put(opRequest, 0, nil)
	d.give(1)
	d.take()
	s.pipe = d.h.pipes[len(d.h.pipes)-1]
	return s
}

func TestBacklog(t *testing.T) {
	b := backlog{size: smallBuffer}
	all := pattern(1_000_000)
	put, got := 0, []byte{}
	for round := 0; len(got) < len(all); round++ {
		n := min(round*977%(smallBuffer-b.n+1), len(all)-put)
		b.add([][]byte{all[put-min(put, 3) : put+n/2], all[put+n/2 : put+n]}, min(put, 3))
		put += n
		k := b.n
		if put < len(all) {
			k = round * 1543 % (b.n + 1)
		}
		left := k
		for _, p := range b.front(nil) {
			p = p[:min(left, len(p))]
			got, left = append(got, p...), left-len(p)
		}
		b.drop(k)
	}
	if !bytes.Equal(got, all) || b.block != nil {
		t.Errorf("%d bytes come out as %d", len(all), len(got))
	}
}

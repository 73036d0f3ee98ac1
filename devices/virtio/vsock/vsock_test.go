package vsock

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"vmm/devices/virtio"
	"vmm/stream"
)

var (
	_ virtio.Device   = (*Device)(nil)
	_ virtio.Resetter = (*Device)(nil)
	_ virtio.Saver    = (*Device)(nil)
)

// both runs f with a connection from the guest, and with one from the host.
func both(t *testing.T, f func(t *testing.T, d *driver, s *socket)) {
	t.Run("dial", func(t *testing.T) {
		d := newDriver(t, ringSize)
		f(t, d, d.dial())
	})
	t.Run("listen", func(t *testing.T) {
		d := newDriver(t, ringSize)
		f(t, d, d.listen())
	})
}

// TestStream: bytes both ways, then the end from one side and from the other.
func TestStream(t *testing.T) {
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.put(opData, 0, []byte("hello"))
		if got := s.pipe.state().out; got != "hello" {
			t.Errorf("the host has %q", got)
		}
		s.pipe.put([]byte("and back"))
		if got := s.receive(); string(got) != "and back" {
			t.Errorf("the guest has %q", got)
		}
		large := pattern(100_000)
		s.pipe.put(large)
		if got := s.receive(); !bytes.Equal(got, large) {
			t.Errorf("the guest has %d bytes, want %d", len(got), len(large))
		}
		for i := 0; i < len(large); i += 50_000 {
			s.put(opData, 0, large[i:i+50_000])
		}
		if got := s.pipe.state().out; got != "hello"+string(large) {
			t.Errorf("the host has %d bytes", len(got))
		}
		s.put(opShutdown, shutBoth, nil)
		d.expect(opReset)
		d.quiet()
		d.over()
	})
}

// TestHostLeaves: data that a program wrote before it left arrives, and then the end.
func TestHostLeaves(t *testing.T) {
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.pipe.change(func() { s.pipe.in = []byte("last words") }, 0)
		s.pipe.leave()
		if _, data := d.expect(opData); string(data) != "last words" {
			t.Errorf("%q", data)
		}
		if p, _ := d.expect(opShutdown); p.flags != shutBoth {
			t.Errorf("%+v", p)
		}
		s.put(opData, 0, []byte("too late")) // sent before the guest knew
		s.put(opReset, 0, nil)
		d.quiet()
		d.over()
	})
}

// TestHalfClose: each direction ends by itself, in either order.
func TestHalfClose(t *testing.T) {
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.pipe.end()
		if p, _ := d.expect(opShutdown); p.flags != shutSend {
			t.Errorf("%+v", p)
		}
		s.put(opData, 0, []byte("an answer"))
		s.put(opShutdown, shutBoth, nil)
		if got := s.pipe.state(); got.out != "an answer" || !got.closed {
			t.Errorf("%+v", got)
		}
		d.expect(opReset)
		d.over()
	})
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.put(opData, 0, []byte("a question"))
		s.put(opShutdown, shutSend, nil)
		if got := s.pipe.state(); got.out != "a question" || !got.shut || got.shutRead {
			t.Errorf("%+v", got)
		}
		s.pipe.put([]byte("an answer"))
		if got := s.receive(); string(got) != "an answer" {
			t.Errorf("%q", got)
		}
		s.pipe.leave()
		if p, _ := d.expect(opShutdown); p.flags != shutBoth {
			t.Errorf("%+v", p)
		}
		s.put(opReset, 0, nil)
		d.over()
	})
	both(t, func(t *testing.T, d *driver, s *socket) { // the guest only writes
		s.put(opShutdown, shutReceive, nil)
		s.pipe.put([]byte("for nobody"))
		s.put(opData, 0, []byte("a"))
		if got := s.pipe.state(); got.out != "a" || !got.shutRead {
			t.Errorf("%+v", got)
		}
		d.quiet()
		s.put(opShutdown, shutSend, nil) // the bits stay set
		d.expect(opReset)
		d.over()
	})
	both(t, func(t *testing.T, d *driver, s *socket) { // the host only writes
		s.pipe.change(func() { s.pipe.failed = errors.New("broken pipe") }, 0)
		s.put(opData, 0, []byte("a"))
		if p, _ := d.expect(opShutdown); p.flags != shutReceive {
			t.Errorf("%+v", p)
		}
		s.pipe.change(func() { s.pipe.failed, s.pipe.in, s.pipe.eof = nil, []byte("b"), true }, stream.Readable)
		if _, data := d.expect(opData); string(data) != "b" {
			t.Errorf("%q", data)
		}
		if p, _ := d.expect(opShutdown); p.flags != shutBoth {
			t.Errorf("%+v", p)
		}
		s.put(opReset, 0, nil)
		d.over()
	})
}

// TestResets: either side can reset a connection, and the other is told.
func TestResets(t *testing.T) {
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.put(opReset, 0, nil)
		d.quiet()
		d.over()
	})
	both(t, func(t *testing.T, d *driver, s *socket) {
		s.pipe.change(func() { s.pipe.failed = errors.New("connection reset") }, stream.Readable)
		d.expect(opReset)
		d.over()
	})
}

// TestRefusals: an absent peer refuses.
func TestRefusals(t *testing.T) {
	d := newDriver(t, ringSize)
	s := &socket{d: d, host: 99, guest: 5, alloc: 1000}
	s.put(opRequest, 0, nil)
	if p, _ := d.expect(opReset); p.srcPort != 99 || p.dstPort != 5 || p.kind != typeStream {
		t.Errorf("%+v", p)
	}
	p := d.h.call(22)
	request, _ := d.expect(opRequest)
	s = &socket{d: d, host: request.srcPort, guest: 22}
	s.put(opReset, 0, nil)
	if got := p.state(); !got.closed || got.accepted != 0 {
		t.Errorf("%+v", got)
	}
	d.over()
}

// TestBefore: before the driver starts, and after it has gone, the host cannot call.
func TestBefore(t *testing.T) {
	h := &town{}
	d := New(guestCID, h)
	if h.call(22) != nil {
		t.Error("taken before the start")
	}
	r := newDriver(t, ringSize)
	s := r.dial()
	r.d.Stop()
	if r.h.call(22) == nil {
		t.Error("refused while paused")
	}
	r.d.Reset()
	if !s.pipe.state().closed || r.h.call(22) != nil {
		t.Error("a connection outlives a reset")
	}
	r.over()
	if d.Conns() != 0 {
		t.Error("connections without a driver")
	}
}

// TestPause: connections survive a pause, with what happened meanwhile.
func TestPause(t *testing.T) {
	d := newDriver(t, ringSize)
	s := d.dial()
	d.d.Stop()
	s.pipe.put([]byte("meanwhile"))
	if d.h.call(22) == nil {
		t.Error("refused")
	}
	d.quiet()
	d.start()
	d.run()
	if _, data := d.expect(opData); string(data) != "meanwhile" {
		t.Errorf("%q", data)
	}
	d.expect(opRequest)
}

// TestRestore: the driver is told once that its connections are lost.
func TestRestore(t *testing.T) {
	state, err := newDriver(t, 0).d.Save()
	if err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, 0)
	d.d.Stop()
	if err := d.d.Load([]byte("{")); err == nil {
		t.Error("loaded half a state")
	}
	if err := d.d.Load(state); err != nil {
		t.Fatal(err)
	}
	d.start()
	for _, n := range []int{3, eventBuffer, eventBuffer} { // the first is too short
		d.event.add(n)
		d.Wake(queueEvent)
		d.run()
	}
	for _, want := range []int{0, 4} {
		b, ok := d.event.used()
		if !ok || len(b) != want || want == 4 && le.Uint32(b) != 0 {
			t.Errorf("event %x, %v, want %d bytes", b, ok, want)
		}
	}
	if b, ok := d.event.used(); ok {
		t.Errorf("another event: %x", b)
	}
}

// TestLimits: a guest that does not do its part loses the connection. While it is paused
// no limit runs.
func TestLimits(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit time.Duration
		begin func(d *driver) (ends func() bool)
	}{
		{"no answer", requestLimit, func(d *driver) func() bool {
			p := d.h.call(22)
			d.expect(opRequest)
			return func() bool { return p.state().closed }
		}},
		{"no end", closeLimit, func(d *driver) func() bool {
			s := d.dial()
			s.pipe.leave()
			d.expect(opShutdown)
			return func() bool { return d.d.Conns() == 0 }
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDriver(t, ringSize)
			ended := test.begin(d)
			time.Sleep(test.limit / 2)
			// It continues just before a timer would have ended by the host's time.
			for _, pause := range []time.Duration{10 * test.limit, test.limit/2 - 15*time.Millisecond} {
				d.d.Stop()
				time.Sleep(pause)
				d.start()
				d.run()
				time.Sleep(10 * time.Millisecond)
				if ended() {
					t.Errorf("%s: it ended by a pause", test.name)
				}
				d.quiet()
			}
			time.Sleep(test.limit + time.Second)
			d.expect(opReset)
			if !ended() {
				t.Errorf("%s: not ended", test.name)
			}
			d.quiet()
			d.over()
		})
	}
	synctest.Test(t, func(t *testing.T) { // it gives no buffer, not even for the call
		d := newDriver(t, 0)
		p := d.h.call(22)
		time.Sleep(requestLimit + time.Second)
		if !p.state().closed {
			t.Error("not ended")
		}
		d.give(1)
		d.quiet()
		d.over()
	})
}

func TestIdentity(t *testing.T) {
	d := New(0x01020304, &town{})
	for off, want := range map[uint64][]byte{0: {4, 3, 2, 1, 0, 0, 0, 0, 0xee}, 2: {2, 1}, 8: {0xee}} {
		p := bytes.Repeat([]byte{0xee}, len(want))
		if off < 8 {
			d.ReadConfig(off, p[:min(len(p), 8)])
		} else {
			d.ReadConfig(off, p)
		}
		if !bytes.Equal(p, want) {
			t.Errorf("configuration at %d: % x, want % x", off, p, want)
		}
	}
	d.WriteConfig(0, []byte{1})
	if d.ID() != 19 || d.Features() != 1 || len(d.QueueSizes()) != 3 {
		t.Error("not a socket device")
	}
}

// TestLateBuffer: the guest adds a buffer just after the device found none and asked for
// a kick. Only then does it look whether to kick. It must kick, or the connection's data
// would never move.
func TestLateBuffer(t *testing.T) {
	d := newDriver(t, 0)
	d.h.listen[80] = true
	s := &socket{d: d, host: 80, guest: 1000, alloc: 256 << 10}
	s.put(opRequest, 0, nil)
	d.h.pipes[0].put([]byte("from the host"))
	added := false
	d.interrupt = func() { // of RESPONSE, for which there is one buffer
		if !added {
			added = true
			d.rx.add(d.rx.size)
		}
	}
	d.give(1)
	if !added {
		t.Fatal("no interrupt")
	}
	if d.rx.noKick.Load()&1 == 0 {
		d.Wake(queueReceive)
		d.run()
	}
	if p, _, ok := d.take(); !ok || p.op != opResponse {
		t.Fatalf("%+v, %v", p, ok)
	}
	if p, b, ok := d.take(); !ok || p.op != opData || string(b) != "from the host" {
		t.Errorf("%+v, %q, %v", p, b, ok)
	}
}

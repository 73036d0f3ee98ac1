package virtq_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

func TestNew(t *testing.T) {
	m := mem.New(mem.Region{Base: ramBase, Bytes: make([]byte, ramSize)})
	const end = ramBase + ramSize
	split := virtq.Layout{Size: 8, Desc: descAt, Driver: driverAt, Device: deviceAt}
	for i, test := range []struct {
		packed bool
		change func(l *virtq.Layout, s *virtq.State)
		err    string // of it; "" is success
	}{
		{false, func(l *virtq.Layout, s *virtq.State) {}, ""},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Size = 1 }, ""},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Size = 0 }, "size 0"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Size = 3 }, "power of two"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Size = 32769 }, "size 32769"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Size = 32768 }, ""}, // areas overlap: allowed
		{false, func(l *virtq.Layout, s *virtq.State) { l.Desc += 8 }, "descriptor area"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Driver += 1 }, "driver area"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Driver += 2 }, ""},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Device += 2 }, "device area"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Desc = 0 }, "not RAM"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Desc = end - 128 }, ""},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Desc = end - 112 }, "not RAM"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Driver = end - 22 }, ""},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Driver = end - 20 }, "not RAM"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Device = end - 72 }, ""},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Device = end - 68 }, "not RAM"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Driver = 0xfffffffffffffffe }, "not RAM"},
		{false, func(l *virtq.Layout, s *virtq.State) { l.Device = 0xfffffffffffffffc }, "not RAM"},
		{false, func(l *virtq.Layout, s *virtq.State) { *s = virtq.State{Avail: 0xffff, Used: 0xffff} }, ""},
		{true, func(l *virtq.Layout, s *virtq.State) {}, ""},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Size = 0 }, "size 0"},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Size = 7 }, ""},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Size = 32768 }, ""},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Size = 40000 }, "size 40000"},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Desc += 4 }, "descriptor area"},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Driver += 2 }, "driver area"},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Device += 1 }, "device area"},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Desc = end - 112 }, "not RAM"},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Driver = end - 4 }, ""},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Driver = end }, "not RAM"},
		{true, func(l *virtq.Layout, s *virtq.State) { l.Device = 4 }, "not RAM"},
		{true, func(l *virtq.Layout, s *virtq.State) { *s = virtq.State{} }, ""},
		{true, func(l *virtq.Layout, s *virtq.State) { s.Avail = 0x8007 }, ""},
		{true, func(l *virtq.Layout, s *virtq.State) { s.Avail = 8 }, "state"},
		{true, func(l *virtq.Layout, s *virtq.State) { s.Used = 0xffff }, "state"},
	} {
		f := virtq.Format{Packed: test.packed, Indirect: true, EventIdx: true}
		l, s := split, f.Fresh()
		test.change(&l, &s)
		q, err := virtq.New(m, l, f, s, func() {})
		if test.err == "" && (err != nil || q == nil) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%d: %+v, %+v: %v, want %q", i, l, s, err, test.err)
		}
	}
}

// TestEcho: the driver's data arrives, and so does the device's answer.
func TestEcho(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 16)
		r.empty()
		copy(r.at(dataAt, 11), "hello world")
		id := r.add(
			buf{dataAt, 4, false}, buf{0xdead000000000000, 0, false}, buf{dataAt + 4, 7, false},
			buf{dataAt + 0x100, 3, true}, buf{dataAt + 0x200, 8, true},
		)
		c := r.pop()
		r.empty()
		if c.ReadableLen() != 11 || c.WritableLen() != 11 || len(c.Readable) != 2 || len(c.Writable) != 2 {
			t.Fatalf("readable %d bytes, %d buffers; writable %d bytes, %d buffers", c.ReadableLen(), len(c.Readable), c.WritableLen(), len(c.Writable))
		}
		status := c.CutLast(1)
		p := make([]byte, 11)
		if !c.ReadFull(p) {
			t.Fatal("not all was readable")
		}
		n := c.Write(bytes.ToUpper(p[:5]))
		status[0][0] = '!'
		if _, _, ok := r.d.used(); ok {
			t.Fatal("used before it was pushed")
		}
		r.q.Push(c, uint32(n))
		r.wantUsed(id, 5)
		if got := string(r.at(dataAt+0x100, 3)) + string(r.at(dataAt+0x200, 8)); got != "HELLO\x00\x00\x00\x00\x00!" {
			t.Errorf("the driver got %q", got)
		}
		r.stop()
	})
}

// TestOrder: chains are popped in ring order and pushed in any order, through many
// laps, with lists of different lengths and every ring size.
func TestOrder(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		for _, size := range []uint16{1, 2, 3, 4, 5, 7, 8, 16, 63, 64} {
			if !f.Packed && size&(size-1) != 0 {
				continue
			}
			r := newRig(t, f, size)
			rnd := rand.New(rand.NewPCG(1, uint64(size)))
			type flying struct {
				id uint16
				c  *virtq.Chain
			}
			var added []flying
			var popped []flying
			bufs := make([]buf, 0, 8)
			for range 1500 {
				for rnd.IntN(4) > 0 {
					n := 1 + rnd.IntN(min(5, int(size)))
					if r.d.free(n) == 0 {
						break
					}
					bufs = bufs[:0]
					for i := range n {
						bufs = append(bufs, buf{dataAt, uint32(1 + i), i >= n/2})
					}
					added = append(added, flying{id: r.add(bufs...)})
				}
				for len(added) > 0 && rnd.IntN(4) > 0 {
					popped = append(popped, flying{added[0].id, r.pop()})
					added = added[1:]
				}
				for len(popped) > 0 && rnd.IntN(3) > 0 {
					i := rnd.IntN(len(popped))
					n := uint32(popped[i].c.WritableLen())
					r.q.Push(popped[i].c, n)
					r.wantUsed(popped[i].id, n)
					popped = append(popped[:i], popped[i+1:]...)
				}
			}
		}
	})
}

// TestWrap: indices wrap at 65536 in a split ring, and wrap counters toggle in a packed
// one, whatever state the queue starts with.
func TestWrap(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		size := uint16(256)
		if f.Packed {
			size = 251
		}
		r := newRig(t, f, size)
		bufs := []buf{{dataAt, 1, false}, {dataAt, 7, true}}
		for i := range 70000 {
			id := r.add(bufs...)
			r.q.Push(r.pop(), uint32(i%8))
			r.wantUsed(id, uint32(i%8))
			if i%1000 == 999 { // a stopped queue continues
				r.empty()
				r.start(r.stop())
			}
		}
		s := r.stop()
		if s.Avail != s.Used {
			t.Errorf("%+v after all is used", s)
		}
		if want := uint16(70000 % 65536); !f.Packed && s.Avail != want {
			t.Errorf("%+v, want %d", s, want)
		}
	})
}

// TestRestart: a queue is stopped while some chains are in flight and others are
// available. It continues where it was, from copies of the memory and the state.
func TestRestart(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 8)
		r.onSignal = func() {
			select {
			case <-r.q.Drained():
				t.Error("an interrupt after the drain")
			default:
			}
		}
		for lap := range 20 {
			r.d.listen(0)
			a, b := r.add(buf{dataAt, 1, true}), r.add(buf{dataAt, 2, true})
			first := r.pop()
			r.q.Stop()
			if r.q.Pop() != nil {
				t.Fatal("popped from a stopped queue")
			}
			select {
			case <-r.q.Drained():
				t.Fatal("drained with a chain in flight")
			default:
			}
			before := r.interrupts.Load()
			r.q.Push(first, 1)
			r.wantUsed(a, 1)
			if r.interrupts.Load() != before+1 {
				t.Error("no interrupt for a chain that was pushed after Stop")
			}
			s := r.stop()
			if f.Packed && lap == 0 && s != (virtq.State{Avail: 0x8001, Used: 0x8001}) || !f.Packed && s != (virtq.State{Avail: uint16(2*lap + 1), Used: uint16(2*lap + 1)}) {
				t.Fatalf("lap %d: state %#x", lap, s)
			}
			r.start(s)
			r.q.Push(r.pop(), 2)
			r.wantUsed(b, 2)
			r.empty()
		}
	})
}

// TestOverlap: the driver may let its areas and buffers overlap. It harms only itself.
func TestOverlap(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 4)
		rings := []buf{{descAt, 0x30000, false}, {descAt, 64, true}, {driverAt, 64, true}, {deviceAt, 64, true}}
		r.add(rings...)
		c := r.pop()
		for _, b := range c.Writable {
			for i := range b {
				b[i] = 0xff
			}
		}
		r.q.Push(c, 192)
		for range 10 {
			c := r.q.Pop()
			if c == nil {
				break
			}
			r.q.Push(c, 0)
		}
		r.stop()
	})
}

func TestInternalErrors(t *testing.T) {
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			t.Helper()
			if s, _ := recover().(string); !strings.HasPrefix(s, "internal error: virtqueue: ") {
				t.Errorf("%s: %q", what, s)
			}
		}()
		f()
	}
	forAll(t, func(t *testing.T, f virtq.Format) {
		r, other := newRig(t, f, 8), newRig(t, f, 8)
		r.add(buf{dataAt, 5, true})
		c := r.pop()
		panics("state of a running queue", func() { r.q.State() })
		panics("push of another queue's chain", func() { other.q.Push(c, 0) })
		panics("push of more than fits", func() { r.q.Push(c, 6) })
		r.q.Stop()
		panics("state of a queue that is not drained", func() { r.q.State() })
		r.q.Push(c, 5)
		panics("second push", func() { r.q.Push(c, 5) })
		panics("push of a chain of nobody", func() { r.q.Push(new(virtq.Chain), 0) })
		r.stop()
	})
}

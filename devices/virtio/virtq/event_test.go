package virtq_test

import (
	"sync/atomic"
	"testing"

	"vmm/devices/virtio/virtq"
)

// TestKicks: the queue asks for a kick for the first chain after it was found empty,
// and for no other.
func TestKicks(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 8)
		r.empty()
		if r.add(buf{dataAt, 1, false}); !r.d.kick() {
			t.Fatal("no kick for the first chain of a fresh queue")
		}
		kicks := 0
		for lap := range 3000 {
			c := r.pop()
			// The device is at work: more chains need no kick.
			batch := 1 + lap%3
			for range batch {
				r.add(buf{dataAt, 1, false})
			}
			if r.d.kick() {
				kicks++
			}
			r.q.Push(c, 0)
			r.d.used()
			for range batch {
				r.q.Push(r.pop(), 0)
				r.d.used()
			}
			if lap%5 == 0 {
				r.empty()
				r.empty() // asking twice changes nothing
				r.add(buf{dataAt, 1, false})
				if !r.d.kick() {
					t.Fatalf("lap %d: no kick for a chain in an empty queue", lap)
				}
				continue
			}
			r.add(buf{dataAt, 1, false})
			if r.d.kick() {
				kicks++
			}
		}
		if kicks > 0 {
			t.Errorf("%d kicks while the device worked", kicks)
		}
	})
}

// TestRecheck: the driver adds a chain after the device looked into the ring and before
// it asked for a kick, so the driver does not kick. A second look finds the chain.
func TestRecheck(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 4)
		r.empty()
		r.add(buf{dataAt, 1, false})
		r.d.kick()
		r.q.Push(r.pop(), 0)
		r.d.used()
		late := 0
		r.q.BeforeListen(func() {
			late++
			r.add(buf{dataAt, 1, false})
			if r.d.kick() {
				t.Error("a kick that nobody asked for")
			}
		})
		r.q.Push(r.pop(), 0)
		if late != 1 {
			t.Errorf("the queue was found empty %d times", late)
		}
	})
}

// TestCheck: Check finds what the driver broke in the available chains. It changes
// neither what is popped next nor whether the driver kicks.
func TestCheck(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 4)
		for lap := range 300 {
			r.empty() // asks for a kick
			r.q.Check()
			id := r.add(buf{dataAt, 1, false})
			r.q.Check() // before the driver has looked whether to kick
			if !r.d.kick() {
				t.Fatalf("lap %d: no kick, though the queue was found empty", lap)
			}
			c := r.pop() // asks for no kick
			r.q.Check()
			second := r.add(buf{dataAt, 1, false})
			r.q.Check()
			if r.d.kick() {
				t.Fatalf("lap %d: a kick while the device works", lap)
			}
			r.q.Push(c, 0)
			r.wantUsed(id, 0)
			r.q.Push(r.pop(), 0)
			r.wantUsed(second, 0)
		}
		r.add(buf{badAt, 1, false})
		if r.q.Check(); r.q.Err() == nil {
			t.Error("a broken chain was not found")
		}
		r.q.Check() // of a broken queue, and of one that has stopped
		r.stop()
		r.q.Check()
	})
}

// TestInterrupts: the driver is interrupted once, for the chain that it asked for.
func TestInterrupts(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		for _, size := range []uint16{4, 8} {
			r := newRig(t, f, size)
			for lap := range 1000 {
				ahead := uint16(lap % 4)
				r.d.listen(ahead)
				for range 4 {
					r.add(buf{dataAt, 1, false})
				}
				for i := range uint16(4) {
					before := r.interrupts.Load()
					r.q.Push(r.pop(), 0)
					got := r.interrupts.Load() - before
					want := int64(1)
					if f.EventIdx && i != ahead {
						want = 0
					}
					if got != want {
						t.Fatalf("lap %d: %d interrupts for chain %d, event at %d", lap, got, i, ahead)
					}
				}
				for range 4 {
					r.d.used()
				}
				r.d.ignore()
				before := r.interrupts.Load()
				for range 3 {
					r.add(buf{dataAt, 1, false})
					r.q.Push(r.pop(), 0)
					r.d.used()
				}
				if got := r.interrupts.Load() - before; got != 0 {
					t.Fatalf("lap %d: %d interrupts, none was wanted", lap, got)
				}
			}
		}
	})
}

// TestEventInList: in a packed ring the event may be at any descriptor of a list, not
// only at the one that is written. An event one lap ahead or more has passed.
func TestEventInList(t *testing.T) {
	r := newRig(t, virtq.Format{Packed: true, EventIdx: true}, 7)
	bufs := []buf{{dataAt, 1, false}, {dataAt, 1, false}, {dataAt, 1, true}}
	for lap := range 400 {
		ahead := lap % 14
		r.d.listen(uint16(ahead))
		r.add(bufs...)
		r.add(bufs...)
		before := r.interrupts.Load()
		r.q.Push(r.pop(), 0)
		first := r.interrupts.Load() - before
		r.q.Push(r.pop(), 0)
		second := r.interrupts.Load() - before - first
		r.d.used()
		r.d.used()
		if (first == 1) != (ahead < 3) || (second == 1) != (ahead >= 3 && ahead < 6) {
			t.Fatalf("lap %d, event at %d: %d and %d interrupts", lap, ahead, first, second)
		}
	}
}

// TestReservedEvent: an event value that is not allowed causes an interrupt.
func TestReservedEvent(t *testing.T) {
	for _, test := range []struct {
		eventIdx bool
		event    uint32
		want     int64
	}{
		{false, 0, 1}, {false, 1<<16 | 0xffff, 0}, {false, 2 << 16, 1}, {false, 3 << 16, 1},
		{true, 0xffff, 1}, {true, 1 << 16, 0}, {true, 2 << 16, 0}, {true, 2<<16 | 1<<15, 1}, {true, 3 << 16, 1},
		{true, 2<<16 | 0x7fff, 0}, {true, 2<<16 | 0xffff, 0},
		{true, 0xfffc<<16 | 1<<15, 1}, {true, 0xfffd << 16, 0}, // reserved bits
	} {
		r := newRig(t, virtq.Format{Packed: true, EventIdx: test.eventIdx}, 4)
		atomic.StoreUint32(&r.words(driverAt, 1)[0], test.event)
		r.add(buf{dataAt, 1, false})
		r.q.Push(r.pop(), 0)
		if got := r.interrupts.Load(); got != test.want {
			t.Errorf("event_idx %v, event %#x: %d interrupts", test.eventIdx, test.event, got)
		}
	}
}

// TestNeighbours: the device does not write what is next to avail_event, and flags
// stays 0 (§2.7.10.2).
func TestNeighbours(t *testing.T) {
	r := newRig(t, virtq.Format{EventIdx: true}, 4)
	behind := r.at(deviceAt+4+8*4, 4)
	le.PutUint32(behind, 0xabcd0000)
	for range 5 {
		r.add(buf{dataAt, 1, false})
		r.q.Push(r.pop(), 0)
		if flags := r.u16(deviceAt).Load(); flags != 0 {
			t.Errorf("flags of the used ring: %d", flags)
		}
		r.d.used()
		r.empty()
	}
	if got := le.Uint32(behind); got != 0xabcd0005 {
		t.Errorf("avail_event and what is behind it: %#x", got)
	}
}

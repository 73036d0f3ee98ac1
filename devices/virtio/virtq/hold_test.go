package virtq_test

import (
	"bytes"
	"testing"

	"vmm/devices/virtio/virtq"
)

// TestHold: a held queue stores nothing, whatever is popped and pushed. When it is
// released it stores all, with one interrupt, and nothing is lost or stored twice.
func TestHold(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 8)
		for lap := range 9 {
			r.d.listen(uint16(lap % 3))
			one := r.add(buf{dataAt, 10, true})
			two := r.add(buf{dataAt, 10, true})
			first, second := r.pop(), r.pop()
			r.q.Hold()
			third := r.add(buf{dataAt, 10, true})
			before, irqs := bytes.Clone(r.ram), r.interrupts.Load()
			r.empty()
			r.q.Check()
			r.q.Push(second, 2)
			r.q.Push(first, 1)
			r.q.Hold() // a second Hold changes nothing
			if !bytes.Equal(before, r.ram) || r.interrupts.Load() != irqs {
				t.Fatalf("lap %d: a store or an interrupt while held", lap)
			}
			r.q.Release()
			r.wantUsed(two, 2)
			r.wantUsed(one, 1)
			if got := r.interrupts.Load() - irqs; got > 1 || !f.EventIdx && got != 1 {
				t.Fatalf("lap %d: %d interrupts", lap, got)
			}
			r.q.Release() // one too many
			r.q.Push(r.pop(), 3)
			r.wantUsed(third, 3)
			r.empty()
		}
	})
}

// TestOwed: chains that a held queue keeps back when it is stopped are returned by the
// queue that continues from its state.
func TestOwed(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 4)
		for lap := range 5 {
			one := r.add(buf{dataAt, 10, true})
			c := r.pop()
			r.q.Hold()
			r.q.Push(c, 7)
			two := r.add(buf{dataAt, 10, true})
			before := bytes.Clone(r.ram)
			s := r.stop()
			r.q.Release()
			owed := r.q.Owed()
			r.start(s)
			if err := r.q.Owe(owed); err != nil {
				t.Fatal(err)
			}
			r.empty()
			if !bytes.Equal(before, r.ram) {
				t.Fatalf("lap %d: a store while held", lap)
			}
			r.q.Release()
			r.wantUsed(one, 7)
			r.q.Push(r.pop(), 8)
			r.wantUsed(two, 8)
		}
	})
}

// TestOwedBad: a foreign list cannot owe more chains than a ring can have in flight.
func TestOwedBad(t *testing.T) {
	many := make([]virtq.Owed, 5)
	for i := range many {
		many[i].Slots = 1
	}
	for _, packed := range []bool{false, true} {
		for i, list := range [][]virtq.Owed{many, {{ID: 4}}, {{Slots: 5}}, {{Slots: 3}, {Slots: 2}}, {{Slots: 0xffff}, {Slots: 1}}} {
			r := newRig(t, virtq.Format{Packed: packed}, 4)
			bad := packed || i < 2
			if err := r.q.Owe(list); (err != nil) != bad {
				t.Errorf("packed %v, %+v: %v", packed, list, err)
			}
			r.q.Release() // harmless, good or bad
		}
	}
}

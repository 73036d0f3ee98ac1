package virtq_test

import (
	"math/rand/v2"
	"testing"

	"vmm/devices/virtio/virtq"
)

// TestPushAll: the driver sees all chains of a batch or none, in order, through many
// laps, and is interrupted once.
func TestPushAll(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 16)
		r.d.listen(0)
		for lap := range 1000 {
			var batch []virtq.Used
			var ids []uint16
			for i := range 1 + lap%5 {
				ids = append(ids, r.add(buf{dataAt, uint32(8 + i), true}, buf{dataAt + 0x100, 8, true}))
			}
			for i := range ids {
				batch = append(batch, virtq.Used{Chain: r.pop(), N: uint32(i)})
			}
			before := r.interrupts.Load()
			r.onSignal = func() {
				for i, id := range ids {
					r.wantUsed(id, uint32(i))
				}
				r.d.listen(0)
			}
			r.q.PushAll(batch)
			if n := r.interrupts.Load() - before; n != 1 {
				t.Fatalf("lap %d: %d interrupts", lap, n)
			}
		}
		r.stop()
	})
}

// TestPushNothing: an empty batch does not count as a push.
func TestPushNothing(t *testing.T) {
	r := newRig(t, virtq.Format{Packed: true}, 4)
	r.d.listen(0)
	r.q.PushAll(nil)
	if _, _, used := r.d.used(); used || r.interrupts.Load() != 0 {
		t.Error("a push of nothing")
	}
}

// TestUnpop: a chain that is put back is the next to be popped. Until then it does not
// count, whatever was pushed before and however chains are cut.
func TestUnpop(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		for _, size := range []uint16{4, 16} {
			r := newRig(t, f, size)
			rnd := rand.New(rand.NewPCG(1, uint64(size)))
			var added, popped []uint16 // ids in ring order: not popped; popped and not pushed
			var chains []*virtq.Chain
			for range 5000 {
				switch rnd.IntN(4) {
				case 0:
					if bufs := []buf{{dataAt, 1, false}, {dataAt, 1, true}}[:1+rnd.IntN(2)]; r.d.free(len(bufs)) > 0 {
						added = append(added, r.add(bufs...))
					}
				case 1:
					if len(added) > 0 {
						chains, popped, added = append(chains, r.pop()), append(popped, added[0]), added[1:]
					}
				case 2:
					if last := len(chains) - 1; last >= 0 {
						r.q.Unpop(chains[last])
						added = append([]uint16{popped[last]}, added...)
						chains, popped = chains[:last], popped[:last]
					}
				case 3: // in ring order: the chains behind it can still be put back
					if len(chains) > 0 {
						r.q.Push(chains[0], 0)
						r.wantUsed(popped[0], 0)
						chains, popped = chains[1:], popped[1:]
					}
				}
			}
			for i := range chains {
				r.q.Unpop(chains[len(chains)-1-i])
			}
			// A queue that continues from here has the same chains.
			r.start(r.stop())
			for _, id := range append(popped, added...) {
				r.q.Push(r.pop(), 0)
				r.wantUsed(id, 0)
			}
			r.empty()
		}
	})
}

// TestUnpopStopped: a stop does not wait for a chain that is put back.
func TestUnpopStopped(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 4)
		id := r.add(buf{dataAt, 1, true})
		c := r.pop()
		r.q.Stop()
		select {
		case <-r.q.Drained():
			t.Fatal("drained with a chain popped")
		default:
		}
		r.q.Unpop(c)
		r.start(r.stop())
		r.q.Push(r.pop(), 1)
		r.wantUsed(id, 1)
	})
}

// TestUnpopOrder: only the last chain can be put back, and only once.
func TestUnpopOrder(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 4)
		r.add(buf{dataAt, 1, true})
		r.add(buf{dataAt, 1, true})
		first, last := r.pop(), r.pop()
		wantPanic(t, "the first of two", func() { r.q.Unpop(first) })
		r.q.Unpop(last)
		wantPanic(t, "a chain twice", func() { r.q.Unpop(last) })
		r.q.Push(first, 0)
		wantPanic(t, "a pushed chain", func() { r.q.Unpop(first) })
	})
}

func wantPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s was put back", what)
		}
	}()
	f()
}

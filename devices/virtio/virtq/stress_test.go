package virtq_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
	"vmm/test/allow"
)

// A bell is an eventfd: it remembers that it rang, not how often.
type bell chan struct{}

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

func (b bell) wait(ctx context.Context, t *testing.T, what string) bool {
	select {
	case <-b:
		return true
	case <-ctx.Done():
		t.Errorf("no %s in time", what)
		return false
	}
}

// serve pops on each kick and lets workers push, out of order, until the context ends.
// Each chain is announced before it is pushed.
func serve(ctx context.Context, q *virtq.Queue, kick bell, wg *sync.WaitGroup, announce func()) {
	chains := make(chan *virtq.Chain, 8)
	for range 3 {
		wg.Go(func() {
			for c := range chains {
				announce()
				var p [4]byte
				c.ReadFull(p[:])
				q.Push(c, uint32(c.Write(p[:])))
			}
		})
	}
	wg.Go(func() {
		defer close(chains)
		for ctx.Err() == nil {
			for c := q.Pop(); c != nil; c = q.Pop() {
				chains <- c
			}
			select {
			case <-kick:
			case <-ctx.Done():
			}
		}
	})
}

// drive makes n chains available and collects them. It kicks and sleeps only as the
// device and the ring say, so a lost event ends in the deadline. Each chain has 16 bytes
// at dataAt for its id. The first half is to be echoed in the second.
func drive(ctx context.Context, t *testing.T, r *rig, n int, kick, interrupt bell) {
	inFlight := 0
	collect := func() bool {
		id, got, ok := r.d.used()
		if !ok {
			return false
		}
		inFlight--
		if p := r.at(slot(id), 16); got != 4 || le.Uint32(p) != le.Uint32(p[8:]) {
			t.Errorf("chain %d: %d bytes, % x", id, got, p)
		}
		return true
	}
	for added := 0; added < n || inFlight > 0; {
		for batch := 1 + added%5; batch > 0 && added < n && r.d.free(2) > 0; batch-- {
			added++
			inFlight++
			addEcho(r, uint32(added))
		}
		if r.d.kick() {
			kick.ring()
		}
		r.d.ignore()
		for collect() {
		}
		if inFlight == 0 || added < n && r.d.free(2) > 0 {
			continue
		}
		r.d.listen(0)
		if !collect() && !interrupt.wait(ctx, t, "interrupt") {
			return
		}
	}
}

func slot(id uint16) mem.Addr { return dataAt + 16*mem.Addr(id) }

// addEcho adds a chain. Its id gives the place of its data.
func addEcho(r *rig, v uint32) {
	at := slot(r.d.nextID())
	le.PutUint32(r.at(at, 4), v)
	le.PutUint32(r.at(at+8, 4), 0)
	r.d.add([]buf{{at, 4, false}, {at + 8, 4, true}})
}

// TestNoEventIsLost runs a driver and a device that sleep whenever they may.
func TestNoEventIsLost(t *testing.T) {
	const n = 10000
	forAll(t, func(t *testing.T, f virtq.Format) {
		for _, size := range []uint16{2, 16} {
			r := newRig(t, f, size)
			kick, interrupt := make(bell, 1), make(bell, 1)
			r.onSignal = interrupt.ring
			ctx, cancel := context.WithTimeout(t.Context(), allow.Time(30*time.Second))
			var wg sync.WaitGroup
			serve(ctx, r.q, kick, &wg, func() {})
			drive(ctx, t, r, n, kick, interrupt)
			cancel()
			wg.Wait()
			r.stop()
		}
	})
}

// echoes collects and checks all used chains, and returns how many.
func echoes(r *rig) int {
	for n := 0; ; n++ {
		id, got, ok := r.d.used()
		if !ok {
			return n
		}
		if p := r.at(slot(id), 16); got != 4 || le.Uint32(p) != le.Uint32(p[8:]) {
			r.Errorf("chain %d: %d bytes, % x", id, got, p)
		}
	}
}

// rings returns the memory that the device may write to in a ring of 16.
func rings(r *rig) string { return string(r.at(descAt, 256)) + string(r.at(deviceAt, 256)) }

// TestStopRaces stops queues while other goroutines pop and push, and continues from
// the saved states. No chain is lost or comes twice, and nothing happens after a drain.
func TestStopRaces(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 16)
		for v := range uint32(4) {
			addEcho(r, v)
		}
		collected := 0
		for i := range 300 {
			kick := make(bell, 1)
			kick.ring()
			drained := false // guarded by Drained itself
			r.onSignal = func() {
				if drained {
					t.Error("an interrupt after the drain")
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), allow.Time(30*time.Second))
			var wg sync.WaitGroup
			q := r.q
			var begun atomic.Int64
			serve(ctx, q, kick, &wg, func() {
				if begun.Add(1) == int64(1+i%3) {
					wg.Go(q.Stop)
					q.Stop()
				}
			})
			select {
			case <-q.Drained():
				drained = true
			case <-ctx.Done():
				t.Fatal("not drained in time")
			}
			before := rings(r)
			s := q.State()
			kick.ring()
			cancel()
			wg.Wait()
			if s != q.State() || before != rings(r) {
				t.Fatal("the queue went on after its drain")
			}
			for n := echoes(r); n > 0; n-- {
				collected++
				addEcho(r, uint32(collected))
			}
			r.start(s)
		}
		r.onSignal = nil
		for c := r.q.Pop(); c != nil; c = r.q.Pop() {
			var p [4]byte
			c.ReadFull(p[:])
			r.q.Push(c, uint32(c.Write(p[:])))
		}
		left := echoes(r)
		if left != 4 {
			t.Errorf("%d chains in the end, of 4", left)
		}
		t.Logf("%d chains in 300 queues", collected)
	})
}

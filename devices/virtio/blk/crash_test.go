package blk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// A volatile is an Image with a cache that a crash loses: writes since the last Flush
// may or may not be on the medium, sector by sector. It calls check at every change,
// because only a change makes a difference to what a crash leaves.
type volatile struct {
	*memory
	t     *testing.T
	lies  bool // Flush does nothing
	check func(v *volatile)

	// Guarded by memory.mu, which guards the driver's claim too.
	medium  []byte
	pending []cachedSector
}

type cachedSector struct {
	sector int
	data   [512]byte
}

func newVolatile(t *testing.T) *volatile {
	m := newMemory(t, crashSectors*512)
	clear(m.bytes)
	return &volatile{memory: m, t: t, medium: make([]byte, len(m.bytes))}
}

func (v *volatile) WritevAt(b [][]byte, off int64) error {
	data := bytes.Join(b, nil)
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := 0; i < len(data); i += 512 {
		v.pending = append(v.pending, cachedSector{int(off)/512 + i/512, [512]byte(data[i:])})
		v.check(v)
	}
	return nil
}

// Flush writes back what is pending when it is called, oldest first.
func (v *volatile) Flush() error {
	if v.lies {
		return nil
	}
	v.mu.Lock()
	n := len(v.pending)
	v.mu.Unlock()
	for range n {
		v.mu.Lock()
		if len(v.pending) > 0 { // else another Flush was faster
			copy(v.medium[v.pending[0].sector*512:], v.pending[0].data[:])
			v.pending = v.pending[1:]
			v.check(v)
		}
		v.mu.Unlock()
	}
	return nil
}

// crash returns what a crash leaves: the medium with a random part of the pending
// writes. The worst case, none of them, may occur.
func (v *volatile) crash(r *rand.Rand) []byte {
	left := bytes.Clone(v.medium)
	odds := r.IntN(5)
	for _, p := range v.pending {
		if r.IntN(4) < odds {
			copy(left[p.sector*512:], p.data[:])
		}
	}
	return left
}

const crashSectors = 48

// A claim is what the driver may rely on for each sector: its version is at least the
// one that a flush covered, and at most the one last written.
type claim struct{ written, acked, durable [crashSectors]uint64 }

func (c *claim) check(left []byte) error {
	for s := range crashSectors {
		b := left[s*512:][:512]
		v := le.Uint64(b)
		if v < c.durable[s] || v > c.written[s] {
			return fmt.Errorf("sector %d: version %d, flushed %d, written %d", s, v, c.durable[s], c.written[s])
		}
		if v != 0 && (le.Uint64(b[504:]) != v || b[8] != byte(s)) {
			return fmt.Errorf("sector %d: what is left is no version of it", s)
		}
	}
	return nil
}

// version returns the content of a sector in version v.
func version(s int, v uint64) []byte {
	b := bytes.Repeat([]byte{byte(s)}, 512)
	le.PutUint64(b, v)
	le.PutUint64(b[504:], v)
	return b
}

// TestCrash: flushed data survives a crash at any point. The test detects a device or an
// image that does not flush.
func TestCrash(t *testing.T) {
	for _, test := range []struct {
		name     string
		features uint64
		lies     bool
	}{
		{"flush", allFeatures, false},
		{"write through", allFeatures &^ featureFlush, false},
		{"no flush", allFeatures, true},
		{"no write through", allFeatures &^ featureFlush, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := newVolatile(t)
			v.lies = test.lies
			requests := 2000
			if test.lies {
				requests = 200
			}
			cuts, bad, err := crashes(t, v, test.features, requests)
			t.Logf("%d cut points, %d bad", cuts, bad)
			if !test.lies && cuts < 4000 {
				t.Errorf("only %d cut points", cuts)
			}
			if lost := err != nil; lost != test.lies {
				t.Errorf("lost %v: %v", lost, err)
			}
		})
	}
}

// crashes runs random writes and flushes, several in flight. It returns at how many
// points it looked, at how many something was lost, and what.
func crashes(t *testing.T, v *volatile, features uint64, requests int) (cuts, bad int, err error) {
	var c claim
	r := rand.New(rand.NewPCG(3, 4))
	v.check = func(v *volatile) {
		cuts++
		if e := c.check(v.crash(r)); e != nil {
			bad++
			err = e
		}
	}
	dev := newWith(t, v, Config{Workers: 4})
	w := &crashDriver{driver: start(t, dev, features), v: v, claim: &c, r: rand.New(rand.NewPCG(5, 6)), through: features&featureFlush == 0}
	kicks := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range kicks {
			dev.Serve(0, w.q)
		}
	})
	for s := range slots {
		w.free = append(w.free, s)
	}
	for range requests {
		if len(w.free) == 0 {
			w.complete()
		}
		w.send()
		select {
		case kicks <- struct{}{}:
		default:
		}
	}
	for len(w.free) < slots {
		w.complete()
	}
	close(kicks)
	wg.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.check(v)
	return cuts, bad, err
}

// A crashDriver writes and flushes at random. Like a file system it has at most one
// write of a sector in flight.
type crashDriver struct {
	*driver
	v       *volatile // its lock guards the claim too
	claim   *claim
	r       *rand.Rand
	through bool // no flushes: writes are durable when they complete

	free   []int
	flight [slots]struct {
		first, n int
		version  uint64
		flush    [crashSectors]uint64 // acked when the flush was sent
		room     []byte
	}
	busy [crashSectors]bool
	next uint64
}

func (w *crashDriver) send() {
	last := len(w.free) - 1
	slot := w.free[last]
	f := &w.flight[slot]
	f.first, f.n = w.r.IntN(crashSectors-4), 1+w.r.IntN(4)
	for s := f.first; s < f.first+f.n; s++ {
		if w.busy[s] {
			f.n = 0
			break
		}
	}
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	a := ask{out: header(typeFlush, 0), room: 1}
	if f.n > 0 {
		w.next++
		f.version = w.next
		var data []byte
		for s := f.first; s < f.first+f.n; s++ {
			w.busy[s] = true
			w.claim.written[s] = f.version
			data = append(data, version(s, f.version)...)
		}
		a.out = header(typeOut, uint64(f.first), data...)
	} else {
		f.flush = w.claim.acked
	}
	w.free = w.free[:last]
	f.room = w.submit(slot, a)
}

func (w *crashDriver) complete() {
	slot, _ := w.wait()
	f := &w.flight[slot]
	if s := status(f.room[0]); s != statusOK {
		w.t.Fatalf("status %d", s)
	}
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	for s := f.first; s < f.first+f.n; s++ {
		w.busy[s] = false
		w.claim.acked[s] = f.version
		if w.through {
			w.claim.durable[s] = f.version
		}
	}
	if f.n == 0 {
		for s, v := range f.flush {
			w.claim.durable[s] = max(w.claim.durable[s], v)
		}
	}
	w.v.check(w.v)
	w.free = append(w.free, slot)
}

package net

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"vmm/devices/virtio/virtq"
	"vmm/ethernet"
	"vmm/mem"
)

// ring is a queue with more RAM than a board has: descriptor i is buffer i.
type ring struct {
	ram       []byte
	q         *virtq.Queue
	size      int // of a buffer
	availIdx  mem.U16
	usedIdx   mem.U16
	seen, got uint16
}

const (
	ringSize                     = 64
	ringDesc, ringAvail, ringUse = 0x1000, 0x3000, 0x4000
	ringData                     = 0x10000
)

// newRing returns a ring of buffers, writable by the device or not.
func newRing(t testing.TB, size int, writable bool) *ring {
	t.Helper()
	r := &ring{ram: make([]byte, ringData+ringSize*size), size: size}
	m := mem.New(mem.Region{Bytes: r.ram})
	for i := range ringSize {
		d := r.ram[ringDesc+16*i:]
		le.PutUint64(d, uint64(ringData+i*size))
		le.PutUint32(d[8:], uint32(size))
		if writable {
			le.PutUint16(d[12:], 2)
		}
	}
	var err error
	if r.q, err = virtq.New(m, virtq.Layout{Size: ringSize, Desc: ringDesc, Driver: ringAvail, Device: ringUse}, virtq.Format{}, virtq.State{}, func() {}); err != nil {
		t.Fatal(err)
	}
	r.availIdx, _ = m.U16(ringAvail + 2)
	r.usedIdx, _ = m.U16(ringUse + 2)
	t.Cleanup(r.q.Stop)
	return r
}

func (r *ring) buffer(i int) []byte { return r.ram[ringData+i*r.size:][:r.size] }

// add makes the first n bytes of buffer i available.
func (r *ring) add(i, n int) {
	le.PutUint32(r.ram[ringDesc+16*i+8:], uint32(n))
	le.PutUint16(r.ram[ringAvail+4+2*int(r.seen%ringSize):], uint16(i))
	r.seen++
	r.availIdx.Store(r.seen)
}

// used returns the next used buffer, and how many bytes it holds.
func (r *ring) used() (i, n int, ok bool) {
	if r.usedIdx.Load() == r.got {
		return 0, 0, false
	}
	e := r.ram[ringUse+4+8*int(r.got%ringSize):]
	r.got++
	return int(le.Uint32(e)), int(le.Uint32(e[4:])), true
}

// bare is a device without a transport.
func bare(t testing.TB) (*Device, *wire) {
	w := newWire(ethernet.Info{Pairs: 1, Offload: testOffload})
	d, err := New(w, testMAC)
	if err == nil {
		err = d.Start(d.Features(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Stop)
	return d, w
}

// TestLargest: the largest frames, and small ones between them.
func TestLargest(t *testing.T) {
	d, w := bare(t)
	r := newRing(t, 4096, true)
	for i := range ringSize {
		r.add(i, r.size)
	}
	lengths := []int{ethernet.MaxFrame, 60, ethernet.MaxFrame, ethernet.MaxFrame}
	for i, n := range lengths {
		w.frames = append(w.frames, frame{bytes: testFrame(n, i)})
	}
	d.Serve(0, r.q)
	for k, n := range lengths {
		var all []byte
		for buffers := 1; buffers > 0; buffers-- {
			i, n, ok := r.used()
			if !ok {
				t.Fatalf("frame %d: a buffer is missing", k)
			}
			b := r.buffer(i)[:n]
			if all == nil {
				buffers = int(le.Uint16(b[10:]))
				b = b[ethernet.HeaderSize:]
			}
			all = append(all, b...)
		}
		if !bytes.Equal(all, testFrame(n, k)) {
			t.Errorf("frame %d: %d bytes, want %d", k, len(all), n)
		}
	}
}

// TestFull: a frame for which there is no room waits and is not lost, even across a
// pause.
func TestFull(t *testing.T) {
	d, w := bare(t)
	r := newRing(t, 1024, true)
	w.frames = []frame{{bytes: testFrame(3000, 1)}, {bytes: testFrame(3000, 2)}}
	for i := range 6 { // a frame takes three
		r.add(i, 1024)
		d.Serve(0, r.q)
		used := 0
		for _, _, ok := r.used(); ok; _, _, ok = r.used() {
			used++
		}
		if want := []int{0, 0, 3}[i%3]; used != want {
			t.Errorf("%d used with %d given, want %d", used, i+1, want)
		}
		d.Stop()
		if err := d.Start(d.Features(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if s := d.Stats().Received; s.Frames != 2 || s.Dropped != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestTooLong: a link never gets a frame that is longer than the maximum.
func TestTooLong(t *testing.T) {
	d, w := bare(t)
	w.keep = true
	r := newRing(t, 1<<17, false)
	for i, n := range []int{ethernet.MaxFrame, ethernet.MaxFrame + 1, 100_000} {
		r.add(i, ethernet.HeaderSize+n)
		d.Serve(1, r.q)
	}
	if s := d.Stats().Transmitted; s.Frames != 1 || s.Errors != 2 || len(w.sent) != 1 || len(w.sent[0].bytes) != ethernet.MaxFrame {
		t.Errorf("%d sent, %+v", len(w.sent), s)
	}
}

// BenchmarkReceive and BenchmarkSend move frames between a ring and a link that costs
// nothing.
func BenchmarkReceive(b *testing.B) {
	for _, n := range []int{60, 1514, 65226} {
		b.Run(name(n), func(b *testing.B) {
			d, w := bare(b)
			r := newRing(b, 4096, true)
			for i := range ringSize {
				r.add(i, r.size)
			}
			w.mu.Lock()
			w.flood = testFrame(n, 1)
			w.mu.Unlock()
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for done := uint64(0); b.Loop(); {
				d.Serve(0, r.q) // as many as there is room for
				for i, _, ok := r.used(); ok; i, _, ok = r.used() {
					r.add(i, r.size)
				}
				frames := d.Stats().Received.Frames
				for range frames - done - 1 {
					if !b.Loop() {
						return
					}
				}
				done = frames
			}
		})
	}
}

func BenchmarkSend(b *testing.B) {
	for _, n := range []int{60, 1514, 65226} {
		b.Run(name(n), func(b *testing.B) {
			d, _ := bare(b)
			r := newRing(b, 65536, false)
			copy(r.buffer(0)[ethernet.HeaderSize:], testFrame(n, 1))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				r.add(0, ethernet.HeaderSize+n)
				d.Serve(1, r.q)
				if _, _, ok := r.used(); !ok {
					b.Fatal("not sent")
				}
			}
		})
	}
}

func name(n int) string { return map[int]string{60: "60", 1514: "1514", 65226: "64K"}[n] }

// TestNoAllocation: neither direction allocates.
func TestNoAllocation(t *testing.T) {
	d, w := bare(t)
	rx, tx := newRing(t, 4096, true), newRing(t, 4096, false)
	f := frame{bytes: testFrame(1514, 1)}
	copy(tx.buffer(0)[ethernet.HeaderSize:], f.bytes)
	frames := make([]frame, 1)
	if n := testing.AllocsPerRun(200, func() {
		frames[0] = f
		w.frames = frames
		rx.add(0, rx.size)
		d.Serve(0, rx.q)
		rx.used()
		tx.add(0, ethernet.HeaderSize+1514)
		d.Serve(1, tx.q)
		tx.used()
	}); n != 0 {
		t.Errorf("%v allocations for two frames", n)
	}
	if s := d.Stats(); s.Received.Frames == 0 || s.Transmitted.Frames == 0 {
		t.Errorf("nothing was moved: %+v", s)
	}
}

// stepper is a link whose goroutine is the test's: it makes no calls by itself.
type stepper struct {
	*wire
	resumed atomic.Bool
}

func (s *stepper) Start(g ethernet.Guest) error { s.guest = g; return nil }
func (s *stepper) Stop()                        {}
func (s *stepper) Resume(int)                   { s.resumed.Store(true) }

// spin waits until v is n. It sleeps only if the other side needs the processor.
func spin(v *atomic.Int32, n int32) {
	for i := 1; v.Load() < n; i++ {
		if i%1000 == 0 {
			time.Sleep(time.Microsecond)
		}
	}
}

// TestStarvedBetween: the link takes the guest's last buffer and waits for Resume.
// Meanwhile the queue is served for an earlier kick, and finds the next buffer. The link
// must be told, or no frame ever comes again. It matters at only one moment in Serve,
// which the test hits by trying.
func TestStarvedBetween(t *testing.T) {
	w := &stepper{wire: newWire(ethernet.Info{Pairs: 1, Offload: testOffload})}
	d, err := New(w, testMAC)
	if err == nil {
		err = d.Start(d.Features(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := newRing(t, 256, true)
	d.Serve(0, r.q)
	r.add(0, r.size)
	d.Serve(0, r.q)
	f := frame{bytes: testFrame(60, 1)}
	const tries = 3000
	hits := 0
	var turn, done atomic.Int32 // of the queue's goroutine, which spins
	go func() {
		for i := int32(1); i <= tries; i++ {
			spin(&turn, i)
			d.Serve(0, r.q)
			done.Store(i)
		}
	}()
	for i := int32(1); i <= tries && !t.Failed(); i++ {
		w.resumed.Store(false)
		w.frames = append(w.frames, f)
		turn.Store(i)
		for range i % 128 {
			done.Load() // a little later each time
		}
		parked := !w.guest.Readable(0)
		r.add(int(i)%ringSize, r.size)
		spin(&done, i)
		d.Serve(0, r.q) // the kick for the buffer, if one is needed
		r.used()
		if parked {
			hits++
			if !w.resumed.Load() {
				t.Errorf("try %d: the link waits for a guest that has room", i)
			}
		}
	}
	turn.Store(tries) // ends it
	if hits == 0 {
		t.Error("the link never found the guest without room")
	}
}

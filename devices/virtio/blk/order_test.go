package blk

import (
	"testing"
	"time"

	"vmm/mem"
)

// gated is an Image whose reads wait until the test lets them go.
type gated struct {
	*memory
	entered chan int64 // sectors
	leave   map[int64]chan struct{}
}

func newGated(t *testing.T) *gated {
	g := &gated{newMemory(t, diskSectors*512), make(chan int64, slots), map[int64]chan struct{}{}}
	for s := range int64(slots) {
		g.leave[s] = make(chan struct{})
	}
	return g
}

func (g *gated) ReadvAt(b [][]byte, off int64) error {
	g.entered <- off / 512
	<-g.leave[off/512]
	return g.memory.ReadvAt(b, off)
}

// enter returns the sector of a read that reached the image.
func (g *gated) enter() int64 {
	g.t.Helper()
	select {
	case s := <-g.entered:
		return s
	case <-time.After(deadline):
		g.t.Fatal("the image is not asked")
		return 0
	}
}

// TestOrder: as many requests as there are workers wait for the host at once. Serve
// waits for none of them, and they complete in the host's order.
func TestOrder(t *testing.T) {
	g := newGated(t)
	dev := newWith(t, g, Config{Workers: 4})
	d := start(t, dev, allFeatures)
	for s := range 6 { // two more than workers
		d.submit(s, ask{out: header(typeIn, uint64(s)), room: 513})
	}
	dev.Serve(0, d.q)
	for range 4 {
		g.enter()
	}
	select {
	case s := <-g.entered:
		t.Fatalf("sector %d: a fifth request with four workers", s)
	default:
	}
	for _, s := range []int{3, 1, 0, 2} {
		close(g.leave[int64(s)])
		if got, _ := d.wait(); got != s {
			t.Errorf("%d completes, want %d", got, s)
		}
	}
	for _, s := range []int{int(g.enter()), int(g.enter())} {
		close(g.leave[int64(s)])
		if got, _ := d.wait(); got != s {
			t.Errorf("%d completes, want %d", got, s)
		}
	}
}

// TestOvertake: a request that can be answered at once does not wait for the host.
func TestOvertake(t *testing.T) {
	g := newGated(t)
	dev := newWith(t, g, Config{Workers: 1})
	d := start(t, dev, allFeatures)
	d.submit(1, ask{out: header(typeIn, 1), room: 513})
	dev.Serve(0, d.q)
	g.enter()
	if _, n, s := d.do(ask{out: header(typeID, 0), room: 21}); s != statusOK || n != 21 {
		t.Errorf("status %d, used %d", s, n)
	}
	close(g.leave[1])
	d.wait()
}

// TestStop: a stopped queue drains while requests wait for the host, and the device
// starts again.
func TestStop(t *testing.T) {
	g := newGated(t)
	dev := newWith(t, g, Config{Workers: 1})
	for range 3 {
		d := start(t, dev, allFeatures)
		for s := range 3 {
			g.leave[int64(s)] = make(chan struct{})
			d.submit(s, ask{out: header(typeIn, uint64(s)), room: 513})
		}
		dev.Serve(0, d.q)
		d.q.Stop()
		select {
		case <-d.q.Drained():
			t.Fatal("drained with a request at the host")
		default:
		}
		for s := range int64(3) {
			close(g.leave[s])
			g.enter()
		}
		d.stop()
		if state := d.q.State(); state.Avail != 3 || state.Used != 3 {
			t.Errorf("state %+v", state)
		}
	}
}

// TestOverlap: a request whose buffers name the same RAM again and again is refused
// before it reaches the host, and the RAM is not written.
func TestOverlap(t *testing.T) {
	m := newMemory(t, 1<<20)
	d := start(t, newDevice(t, m), allFeatures)
	const size = 1 << 20
	for _, write := range []bool{false, true} {
		m.ops = nil
		room := d.submit(0, ask{out: header(typeIn, 0), room: 1})
		d.ram[slotsAt] = typeIn
		flags := uint16(3)
		if write {
			d.ram[slotsAt] = typeOut
			flags = 1
		}
		// The chain: the header, 100 times the same buffer, the status.
		table := d.ram[descAt:][:16*queueSize]
		last := [16]byte(table[16:32])
		for i := 1; i <= 100; i++ {
			e := table[16*i:]
			le.PutUint64(e, uint64(slotsAt+slotSize))
			le.PutUint32(e[8:], size)
			le.PutUint16(e[12:], flags)
			le.PutUint16(e[14:], uint16(i+1))
		}
		copy(table[16*101:], last[:])
		d.dev.Serve(0, d.q)
		if _, n := d.wait(); status(room[0]) != statusIOErr || n != map[bool]uint32{false: 0, true: 1}[write] || len(m.ops) != 0 {
			t.Errorf("write %v: status %d, used %d, did %q", write, room[0], n, m.ops)
		}
	}
}

// TestNoAllocation: neither an immediate answer nor a worker allocates.
func TestNoAllocation(t *testing.T) {
	m := newMemory(t, 1<<20)
	m.keep = false
	for name, image := range map[string]Image{"at once": cached{m}, "worker": m} {
		d := start(t, newDevice(t, image), allFeatures)
		a := ask{out: header(typeIn, 8), outCuts: []int{16}, room: 4097, inCuts: []int{4096}}
		do := d.again(a)
		do()
		if n := testing.AllocsPerRun(200, do); n != 0 {
			t.Errorf("%s: %v allocations a request", name, n)
		}
	}
}

// again returns a function that repeats the same request, and does nothing else that
// takes time.
func (d *driver) again(a ask) func() {
	d.submit(0, a)
	d.dev.Serve(0, d.q)
	d.wait()
	idx, _ := d.m.U16(availAt + 2)
	used, _ := d.m.U16(usedAt + 2)
	return func() { d.repeat(idx, used) }
}

func (d *driver) repeat(idx, used mem.U16) {
	le.PutUint16(d.ram[availAt+4+2*int(d.avail%queueSize):], 0)
	d.avail++
	idx.Store(d.avail)
	d.dev.Serve(0, d.q)
	for used.Load() == d.used {
		<-d.irq
	}
	d.used++
}

// BenchmarkRead is a read of 4 KiB at depth 1.
func BenchmarkRead(b *testing.B) {
	m := newMemory(b, 1<<20)
	m.keep = false
	for _, bench := range []struct {
		name  string
		image Image
	}{{"at once", cached{m}}, {"worker", m}} {
		b.Run(bench.name, func(b *testing.B) {
			d := start(b, newDevice(b, bench.image), allFeatures)
			do := d.again(ask{out: header(typeIn, 8), outCuts: []int{16}, room: 4097, inCuts: []int{4096}})
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}

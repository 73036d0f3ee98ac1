package pci_test

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmm/devices/pci"
	"vmm/test/allow"
)

// deadline is longer than any test needs. A test that is not done by then hangs.
var deadline = allow.Time(time.Minute)

func wait(t *testing.T, w *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() { w.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(deadline):
		t.Fatal("deadlock")
	}
}

// A handler is a vector whose interrupt handler takes all pending work.
type handler struct {
	vector
	work atomic.Int64
	mu   sync.Mutex
	seen int64
}

func (h *handler) Signal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signals.Add(1)
	h.seen = h.work.Load()
}

// TestSignalRace signals while the guest masks, unmasks, disables and re-routes all the
// time. The handler must see the last signalled work, or it is lost.
func TestSignalRace(t *testing.T) {
	for _, guest := range []struct {
		name     string
		off, on  func(h *host, control, table uint64)
		routeToo bool
	}{
		{"entry", func(h *host, _, table uint64) { out(h.memory, table+12, 4, 1) }, func(h *host, _, table uint64) { out(h.memory, table+12, 4, 0) }, false},
		{"message", func(h *host, _, table uint64) { out(h.memory, table+12, 4, 1) }, func(h *host, _, table uint64) { out(h.memory, table+12, 4, 0) }, true},
		{"function", func(h *host, control, _ uint64) { h.setConfig(1, control, 2, fmasked) }, func(h *host, control, _ uint64) { h.setConfig(1, control, 2, enabled) }, false},
		{"enable", func(h *host, control, _ uint64) { h.setConfig(1, control, 2, 0) }, func(h *host, control, _ uint64) { h.setConfig(1, control, 2, enabled) }, false},
		{"bus master", func(h *host, _, _ uint64) { h.setConfig(1, command, 2, memoryOn) }, func(h *host, _, _ uint64) { h.setConfig(1, command, 2, memoryOn|masterOn) }, false},
	} {
		t.Run(guest.name, func(t *testing.T) {
			h, v := newHost(t), new(handler)
			f := h.add(&device{}, []pci.Vector{v})
			control, table, pba := h.msix(1)
			out(h.memory, table, 8, apic)
			out(h.memory, table+12, 4, 0)
			h.setConfig(1, control, 2, enabled)
			for range 300 {
				var w sync.WaitGroup
				var done atomic.Bool
				w.Go(func() {
					defer done.Store(true)
					for range 50 {
						v.work.Add(1)
						f.MSIX().Signal(0)
						runtime.Gosched()
					}
				})
				w.Go(func() {
					for i := uint64(0); !done.Load(); i++ {
						guest.off(h, control, table)
						if guest.routeToo {
							out(h.memory, table+8, 4, i)
						}
						runtime.Gosched()
						guest.on(h, control, table)
						in(h.memory, pba, 8)
					}
				})
				wait(t, &w)
				if v.seen != v.work.Load() {
					t.Fatalf("an interrupt was lost: %d of %d", v.seen, v.work.Load())
				}
			}
			t.Logf("%d signals sent, %d made", v.signals.Load(), v.work.Load())
		})
	}
}

// TestOneSignal races one signal against one unmask, very often: nothing may come
// between the two halves of Signal, or between those of unmasking.
func TestOneSignal(t *testing.T) {
	h := newHost(t)
	v, p := vectors(1)
	f := h.add(&device{}, p)
	control, table, _ := h.msix(1)
	out(h.memory, table, 8, apic)
	h.setConfig(1, control, 2, enabled)
	const rounds = 30000
	var start, done atomic.Int32
	var w sync.WaitGroup
	w.Go(func() {
		for i := int32(1); i <= rounds; i++ {
			for start.Load() < i {
				runtime.Gosched()
			}
			f.MSIX().Signal(0)
			done.Store(i)
		}
	})
	end := time.Now().Add(deadline)
	for i := int32(1); i <= rounds; i++ {
		out(h.memory, table+12, 4, 1)
		before := v[0].signals.Load()
		start.Store(i)
		for range i % 64 { // so that either comes first in some rounds
			start.Load()
		}
		out(h.memory, table+12, 4, 0)
		for done.Load() < i {
			if runtime.Gosched(); time.Now().After(end) {
				t.Fatal("deadlock")
			}
		}
		if n := v[0].signals.Load() - before; n != 1 {
			start.Store(rounds)
			t.Errorf("round %d: %d interrupts", i, n)
			break
		}
	}
	wait(t, &w)
}

// random does something to the device in a slot.
func (h *host) random(r *rand.Rand, slot int) {
	addr := lowBase + uint64(r.IntN(8))*0x1000
	switch r.IntN(5) {
	case 0:
		h.setConfig(slot, command, 2, uint64(r.IntN(0x800)))
	case 1:
		h.setConfig(slot, 0x10, 8, addr)
	case 2:
		h.setConfig(slot, 0x18, 4, addr)
	case 3:
		out(h.ports, 0, 4, 0x8000_001c|uint64(slot)<<11)
		out(h.ports, 4, 4, addr)
	case 4:
		h.memory.Write(addr, []byte{1, 0, 0, 0})
		h.config(slot, status, 2)
		h.setConfig(slot, h.findCap(slot, 0x11)+2, 2, uint64(r.IntN(4))<<14)
	}
}

// TestLocks lets several vCPUs move BARs, through both mechanisms, while devices raise
// interrupts with their own lock held. Moved takes that lock, raises interrupts, and
// changes the memory bus.
func TestLocks(t *testing.T) {
	const slots, steps = 3, 400
	h := newHost(t)
	var device [slots]*device
	var f [slots]*pci.Function
	var mu [slots]sync.Mutex
	for i := range slots {
		own := uint64(0x1000_0000 + i*0x1000)
		d := example('A' + byte(i)*2)
		d.hook = func(bar int, addr uint64, on bool) {
			mu[i].Lock()
			defer mu[i].Unlock()
			if h.memory.Map(own, 0x1000, new(memory)) != nil {
				t.Error("the device's own range is taken")
			}
			f[i].INTx().Set(on)
			f[i].MSIX().Signal(0)
			if h.memory.Unmap(own) != nil {
				t.Error("the device's own range is gone")
			}
		}
		_, v := vectors(2)
		device[i], f[i] = d, h.add(d, v)
	}
	var w sync.WaitGroup
	for cpu := range uint64(3) {
		r := rand.New(rand.NewPCG(1, cpu))
		w.Go(func() {
			for range steps {
				h.random(r, 1+r.IntN(slots))
			}
		})
	}
	for i := range slots {
		w.Go(func() {
			for n := range steps {
				mu[i].Lock()
				f[i].INTx().Set(n&1 == 0)
				f[i].MSIX().Signal(uint16(n & 1))
				f[i].MSIX().Enabled()
				mu[i].Unlock()
			}
			mu[i].Lock()
			f[i].INTx().Set(false)
			mu[i].Unlock()
		})
	}
	wait(t, &w)
	for i := range slots {
		f[i].INTx().Set(false)
	}
	for i := range h.lines {
		if h.lines[i].is() {
			t.Errorf("line %d is high", i)
		}
	}
	check(t, h, device[:])
}

// check compares the addresses that devices were told with those that answer. It checks
// that nothing overlaps or lies outside the windows.
func check(t testing.TB, h *host, devices []*device) {
	t.Helper()
	type span struct {
		base, end uint64
		ports     bool
	}
	spans := []span{{fixedBase, fixedBase + fixedSize, false}, {fixedPort, fixedPort + fixedPorts, true}}
	for _, d := range devices {
		for i, addr := range d.at {
			s := span{addr, addr + d.bars[i].Size, d.bars[i].Ports}
			in, who := false, h.who
			if s.ports {
				who = h.whoPort
			}
			for _, w := range windows {
				in = in || s.base >= w.Base && s.end <= w.End && s.base < s.end && s.ports == w.Ports
			}
			for _, o := range spans {
				in = in && (s.ports != o.ports || s.end <= o.base || o.end <= s.base)
			}
			name := d.bars[i].Device.(*memory).name
			if a, b := who(s.base), who(s.end-1); !in || a != name || b != name {
				t.Fatalf("%c is at %+v, where %c and %c answer; others %+v", name, s, a, b, spans)
			}
			spans = append(spans, s)
		}
	}
	if a, b := h.who(fixedBase), h.whoPort(fixedPort); a != 'F' || b != 'F' {
		t.Fatalf("%c and %c are where the fixed devices were", a, b)
	}
}

package blk

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"vmm/devices/virtio"
	"vmm/devices/virtio/virtiotest"
)

// gate holds back the operations of an image, as a slow host would.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // guarded by mu; nil: open
	busy atomic.Int32  // operations that wait
}

func (g *gate) pass(string) error {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		g.busy.Add(1)
		<-shut
		g.busy.Add(-1)
	}
	return nil
}

func (g *gate) hold() (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
	return g.open
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// TestConformance: with an image that answers at once, and with one that needs workers
// to wait.
func TestConformance(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprintf("slow=%v", slow), func(t *testing.T) { virtiotest.Run(t, target(t, slow)) })
	}
}

func target(t *testing.T, slow bool) virtiotest.Target {
	const sectors = 64
	m := newMemory(t, sectors*sectorSize)
	m.keep = false
	disk := bytes.Clone(m.bytes)
	var image Image = cached{m}
	g := new(gate)
	if slow {
		m.fail, image = g.pass, m
	}
	config := newConfig(image, 2)
	target := virtiotest.Target{
		New: func(tb testing.TB) virtio.Device {
			d, err := New(image, Config{Queues: 2})
			if err != nil {
				tb.Fatal(err)
			}
			return d
		},
		Request: func(_, i int) virtiotest.Request {
			sector := uint64(i) % (sectors - 1)
			want := append(bytes.Clone(disk[sector*sectorSize:][:2*sectorSize]), byte(statusOK))
			return virtiotest.Request{Out: header(typeIn, sector), In: len(want), Check: func(in []byte, n uint32) error {
				if int(n) != len(want) || !bytes.Equal(in, want) {
					return fmt.Errorf("sector %d: %d bytes, status %d", sector, n, in[len(in)-1])
				}
				return nil
			}}
		},
		Config: config[:],
	}
	if slow {
		target.Hold = func(virtio.Device) func() { return g.hold() }
		target.Busy = func(virtio.Device) int { return int(g.busy.Load()) }
	}
	return target
}

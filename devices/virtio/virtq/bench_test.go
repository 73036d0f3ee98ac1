package virtq_test

import (
	"fmt"
	"testing"

	"vmm/devices/virtio/virtq"
)

// lap passes batch chains through the queue once, without a system call.
func (r *rig) lap(bufs []buf, chains []*virtq.Chain) {
	for range chains {
		r.d.add(bufs)
	}
	for i := range chains {
		chains[i] = r.q.Pop()
	}
	if r.q.Pop() != nil {
		r.Fatal("a chain too many")
	}
	for _, c := range chains {
		r.q.Push(c, 1)
	}
	for range chains {
		r.d.used()
	}
}

// request is a disk request: a header, data, a status.
var request = []buf{{dataAt, 16, false}, {dataAt + 0x1000, 4096, true}, {dataAt + 16, 1, true}}

func TestNoAllocations(t *testing.T) {
	forAll(t, func(t *testing.T, f virtq.Format) {
		r := newRig(t, f, 256)
		chains := make([]*virtq.Chain, 32)
		p := make([]byte, 16)
		if n := testing.AllocsPerRun(200, func() {
			r.lap(request, chains)
			r.d.add(request)
			c := r.q.Pop()
			status := c.CutLast(1)
			c.ReadFull(p)
			c.Write(p)
			status[0][0] = 0
			r.q.Push(c, 17)
			r.d.used()
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// BenchmarkPopPush is one chain of three descriptors, both sides of the ring.
func BenchmarkPopPush(b *testing.B) {
	for _, f := range []virtq.Format{{}, {Indirect: true}, {Packed: true}, {Packed: true, Indirect: true}} {
		f.EventIdx = true
		for _, batch := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/%d", name(f), batch), func(b *testing.B) {
				r := newRig(b, f, 256)
				chains := make([]*virtq.Chain, batch)
				r.d.ignore()
				b.ReportAllocs()
				for b.Loop() {
					r.lap(request, chains)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batch), "ns/chain")
			})
		}
	}
}

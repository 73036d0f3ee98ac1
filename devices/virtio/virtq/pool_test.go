package virtq_test

import (
	"testing"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

// TestPool: a driver has all chains in flight at once, each as long as allowed. The
// queue does not keep the memory for that.
func TestPool(t *testing.T) {
	for _, packed := range []bool{false, true} {
		const size = 128
		g := guest{newRig(t, virtq.Format{Packed: packed, Indirect: true}, size)}
		for i := range size { // one table for all
			flags, id := uint16(next), uint16(i+1)
			if i == size-1 {
				flags = 0
			}
			if packed {
				flags, id = 0, 0
			}
			g.descAt(tablesAt+mem.Addr(16*i), dataAt, 1, flags, id)
		}
		heads := make([]uint16, size)
		for i := range size {
			if packed {
				g.pdesc(i, tablesAt, 16*size, uint16(i), indirect)
			} else {
				g.desc(i, tablesAt, 16*size, indirect, 0)
				heads[i] = uint16(i)
			}
		}
		if !packed {
			g.avail(heads...)
		}
		var held []*virtq.Chain
		for range size {
			held = append(held, g.pop())
		}
		for _, c := range held {
			g.q.Push(c, 0)
		}
		if chains, room := g.q.Pooled(); chains != size || room > 32*size || room < 16*size {
			t.Errorf("packed %v: %d chains with room for %d buffers", packed, chains, room)
		}
		g.stop()
	}
}

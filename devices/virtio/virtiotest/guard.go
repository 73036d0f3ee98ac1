package virtiotest

import (
	"fmt"
	"slices"

	"vmm/mem"
)

// A span is a range of RAM.
type span struct {
	addr mem.Addr
	n    uint64
}

// A guard is a copy of RAM, except what may change.
type guard struct {
	b      *Board
	pieces []piece
}

type piece struct {
	addr mem.Addr
	was  []byte
}

// guard copies all RAM outside free; check then reports changes.
func (b *Board) guard(free []span) *guard {
	g := &guard{b: b}
	free = slices.Clone(free)
	slices.SortFunc(free, func(a, b span) int { return int(int64(a.addr) - int64(b.addr)) })
	for _, r := range b.RAM.Regions() {
		at := r.Base
		for _, f := range free {
			if f.addr >= at && f.addr < r.End() {
				g.remember(at, f.addr)
			}
			if end := f.addr + mem.Addr(f.n); f.addr < r.End() && end > at {
				at = min(end, r.End())
			}
		}
		g.remember(at, r.End())
	}
	return g
}

func (g *guard) remember(from, to mem.Addr) {
	if from < to {
		g.pieces = append(g.pieces, piece{from, snapshot(g.b.bytes(from, uint64(to-from)))})
	}
}

// snapshot is bytes.Clone without the race detector, which would otherwise look at
// all RAM and take most of a test's time. equal likewise.
//
//go:norace
func snapshot(b []byte) []byte {
	was := make([]byte, len(b))
	//lint:ignore S1001 copy would have it look
	for i := range b {
		was[i] = b[i]
	}
	return was
}

//go:norace
func equal(a, b []byte) bool { return string(a) == string(b) }

func (g *guard) check() error {
	for _, p := range g.pieces {
		now := g.b.bytes(p.addr, uint64(len(p.was)))
		if equal(now, p.was) {
			continue
		}
		for i, v := range now {
			if v != p.was[i] {
				return fmt.Errorf("RAM that was not given has changed at %#x, from %#x to %#x", uint64(p.addr)+uint64(i), p.was[i], v)
			}
		}
	}
	return nil
}

package virtio

import (
	"sync"
	"sync/atomic"

	"vmm/bus"
)

// A pin is the interrupt of an MMIO, with its status register, §4.2.2. Its methods
// are called on any goroutine, with any locks held.
type pin interface {
	raise(bits uint32)
	acknowledge(bits uint32)
	status() uint32
}

// edgePin signals one edge per event.
type edgePin struct {
	irq bus.Interrupt
	isr atomic.Uint32
}

func (p *edgePin) raise(bits uint32) {
	p.isr.Or(bits)
	p.irq.Signal()
}

func (p *edgePin) acknowledge(bits uint32) { p.isr.And(^bits) }

func (p *edgePin) status() uint32 { return p.isr.Load() }

// linePin is a level that is high while the status is not 0. It also works for a
// guest that takes the rise for an edge: if an acknowledgment leaves bits set, the
// line falls and rises again. Linux without ACPI has such a line on the PICs. It
// leaves their trigger mode (ELCR) as it finds it: edges, unless the firmware or boot
// loader set it otherwise.
type linePin struct {
	line bus.Line

	mu  sync.Mutex // guards isr against line
	isr uint32
}

func (p *linePin) raise(bits uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isr |= bits
	p.line.Set(true)
}

func (p *linePin) acknowledge(bits uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isr&bits == 0 {
		return
	}
	p.isr &^= bits
	p.line.Set(false)
	if p.isr != 0 {
		p.line.Set(true)
	}
}

func (p *linePin) status() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isr
}

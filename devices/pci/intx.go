package pci

import (
	"sync"

	"vmm/bus"
)

// INTx is the interrupt pin of a function, always INTA (§2.2.6): a level, and a
// bus.Line to the device. Functions share a line, which is high while any of them is.
type INTx struct {
	line *line
	bit  uint32 // in line.high

	// Guarded by line.mu.
	level bool
	gated bool // Interrupt Disable, or MSI-X is enabled
}

// A line leads to an input of the interrupt controller.
type line struct {
	out bus.Line // nil: nowhere

	mu   sync.Mutex
	high uint32 // functions that drive it, one bit per slot
}

// Set implements bus.Line: the device requests service, or no longer does. It may be
// called on any goroutine, even with the device's locks held. The level is kept while
// the guest has the pin disabled.
func (x *INTx) Set(high bool) {
	x.line.mu.Lock()
	defer x.line.mu.Unlock()
	x.level = high
	x.drive()
}

// gate disconnects the pin or connects it again.
func (x *INTx) gate(off bool) {
	x.line.mu.Lock()
	defer x.line.mu.Unlock()
	x.gated = off
	x.drive()
}

// pending is Interrupt Status. It does not depend on Interrupt Disable, §6.2.3.
func (x *INTx) pending() bool {
	x.line.mu.Lock()
	defer x.line.mu.Unlock()
	return x.level
}

func (x *INTx) drive() {
	l := x.line
	was := l.high != 0
	l.high &^= x.bit
	if x.level && !x.gated {
		l.high |= x.bit
	}
	if is := l.high != 0; is != was && l.out != nil {
		l.out.Set(is)
	}
}

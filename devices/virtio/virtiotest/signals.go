package virtiotest

import (
	"errors"
	"sync/atomic"
)

// Signals is an interrupt input that counts its signals.
type Signals struct {
	n atomic.Int64
	c chan struct{} // has one if there was a signal since the last wait
}

func newSignals() *Signals { return &Signals{c: make(chan struct{}, 1)} }

// Signal implements bus.Interrupt.
func (s *Signals) Signal() {
	s.n.Add(1)
	select {
	case s.c <- struct{}{}:
	default:
	}
}

// Count returns how many signals there were.
func (s *Signals) Count() int64 { return s.n.Load() }

// A Vector is an MSI-X vector that counts its signals.
type Vector struct {
	*Signals
	message atomic.Uint64 // the data that it was last routed to
}

var errRoute = errors.New("no such interrupt controller")

// Route implements pci.Vector. It refuses addresses that are not a local APIC's.
func (v *Vector) Route(addr uint64, data uint32) error {
	if addr>>20 != 0xfee {
		return errRoute
	}
	v.message.Store(uint64(data))
	return nil
}

// A Line is a level-triggered input that counts how often it rose.
type Line struct {
	*Signals
	high atomic.Bool
}

func newLine() *Line { return &Line{Signals: newSignals()} }

// Set implements bus.Line.
func (l *Line) Set(high bool) {
	if was := l.high.Swap(high); high && !was {
		l.Signal()
	}
}

// High returns the level.
func (l *Line) High() bool { return l.high.Load() }

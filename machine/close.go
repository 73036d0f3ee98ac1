package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vmm/task"
)

// part is a set of resources opened and closed together: a device and its host
// backend. Parts do not depend on one another, only on the base.
type part struct {
	name   string
	undo   []func() error // one for each step taken, in order
	closed chan struct{}  // closed when all is undone; a panic prevents that
	err    error          // from closing
}

func newPart(format string, args ...any) *part {
	return &part{name: fmt.Sprintf(format, args...), closed: make(chan struct{})}
}

// newPart adds an empty part to the machine; the caller opens what belongs to it.
func (m *Machine) newPart(format string, args ...any) *part {
	p := newPart(format, args...)
	m.parts = append(m.parts, p)
	return p
}

// opened records a step, which is undone after all later ones.
func (p *part) opened(undo func() error) { p.undo = append(p.undo, undo) }

// does is opened for an undo function that cannot fail.
func (p *part) does(undo func()) {
	p.opened(func() error {
		undo()
		return nil
	})
}

func (p *part) close() {
	var errs []error
	for _, undo := range slices.Backward(p.undo) {
		errs = append(errs, undo())
	}
	p.err = errors.Join(errs...)
	close(p.closed)
}

// wait reports whether p is closed by the time ctx is done.
func (p *part) wait(ctx context.Context) bool {
	select {
	case <-p.closed:
		return true
	case <-ctx.Done():
	}
	select {
	case <-p.closed: // closed while we waited for another part
		return true
	default:
		return false
	}
}

// A StuckError says that a part of the machine cannot be closed because the host does
// not complete its requests.
type StuckError struct {
	Part  string
	After time.Duration
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("%s: not closed after %v, for the host has not completed its requests; what it holds, and the guest's memory, stays taken until then", e.Part, e.After)
}

// forever means no limit: while the host holds a device's requests, they may still
// write to guest memory and to the files open under their descriptors.
const forever = time.Duration(1<<63 - 1)

// free releases all that build acquired, in reverse where one thing depends on
// another. All parts are closed at once, so a stuck part does not keep others open. It
// returns after limit at most; what is not closed by then is closed as soon as
// possible.
func (m *Machine) free(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return m.freeUntil(ctx, limit)
}

// freeUntil is free with a ctx that is done after limit.
func (m *Machine) freeUntil(ctx context.Context, limit time.Duration) error {
	if m.devices.com1 != nil {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		m.devices.com1.Close(now) // nothing changes its interrupt line any more
	}
	own := task.Owner(m.panicked)
	for _, p := range m.parts {
		own.Go(p.close)
	}
	own.Go(func() {
		for _, p := range m.parts {
			<-p.closed
		}
		m.base.close()
	})
	var errs []error
	stuck := false
	for _, p := range append(m.parts, m.base) {
		if p.wait(ctx) {
			errs = append(errs, p.err)
		} else {
			if p != m.base || !stuck { // the base waits for the parts
				errs = append(errs, &StuckError{p.name, limit})
			}
			stuck = true
		}
	}
	if m.own != nil {
		errs = append(errs, m.own.Close()) // stuck parts already hold the files they need
	}
	return errors.Join(errs...)
}

// panicLimit bounds the shutdown after a panic, and then Close: a goroutine that waits
// for a lock held by the panicking one waits forever.
const panicLimit = 10 * time.Second

// panicked is the owner of all goroutines of the machine. A panic ends the machine,
// not the whole program, which may have a terminal to restore.
func (m *Machine) panicked(p *task.PanicError) {
	if m.bug.CompareAndSwap(nil, p) {
		close(m.broken)
		task.Owner(m.panicked).AfterFunc(m.grace, func() { close(m.lost) })
	} else {
		m.log.Error("another internal error, on the way to the end", "panic", p.Value, "stack", string(p.Stack))
	}
	m.finish(ending{err: p})
}

// Close ends the machine if it runs, and returns everything it holds to the host,
// except what a *StuckError names. Every other method fails from then on. A panic that
// Run has not returned is in the error.
func (m *Machine) Close() error {
	done := make(chan error, 1)
	task.Owner(m.panicked).Go(func() { done <- m.close() })
	var err error
	select {
	case err = <-done:
	case <-m.lost:
		select {
		case err = <-done:
		case <-time.After(m.grace):
			err = &StuckError{"the machine", m.grace}
		}
	}
	if bug := m.bug.Load(); bug != nil {
		return errors.Join(bug, err)
	}
	return err
}

func (m *Machine) close() error {
	if m.freed.Swap(true) {
		return nil
	}
	if stop := m.setClosed(); stop != nil {
		stop()
		<-m.done
	}
	limit := drainLimit
	if m.slow.Load() || m.bug.Load() != nil {
		limit = m.grace / 2 // Run has waited already
	}
	return m.free(limit)
}

// setClosed returns the function that ends Run, or nil if Run was not called. After a
// panic, Pause or Resume may hold the lock forever; in that case Run has been called,
// and ends.
func (m *Machine) setClosed() (stop context.CancelFunc) {
	stops := make(chan context.CancelFunc, 1)
	task.Owner(m.panicked).Go(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.state = closed
		stops <- m.stop
	})
	select {
	case stop = <-stops:
		return stop
	case <-m.lost:
		return func() {}
	}
}

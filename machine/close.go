package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vmm/task"
)

// part is what is opened together and closed together: a device with what is behind
// it on the host. Parts do not stand on one another, but all on the base.
type part struct {
	name   string
	undo   []func() error // one for each step that was taken, in their order
	closed chan struct{}  // closed when all is undone, which a panic prevents
	err    error          // of that
}

func newPart(format string, args ...any) *part {
	return &part{name: fmt.Sprintf(format, args...), closed: make(chan struct{})}
}

// newPart begins a part of the machine; the caller opens the rest of it.
func (m *Machine) newPart(format string, args ...any) *part {
	p := newPart(format, args...)
	m.parts = append(m.parts, p)
	return p
}

// opened notes a step, which is undone when all later ones are.
func (p *part) opened(undo func() error) { p.undo = append(p.undo, undo) }

// does is opened for what cannot fail.
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

// wait returns whether p is closed by the time that ctx is done.
func (p *part) wait(ctx context.Context) bool {
	select {
	case <-p.closed:
		return true
	case <-ctx.Done():
	}
	select {
	case <-p.closed: // while another was waited for
		return true
	default:
		return false
	}
}

// A StuckError says that a part of the machine cannot be closed, because the host
// does not complete its requests.
type StuckError struct {
	Part  string
	After time.Duration
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("%s: not closed after %v, for the host has not completed its requests; what it holds, and the guest's memory, stays taken until then", e.Part, e.After)
}

// forever is no limit: while the host has requests of a device, these may write to
// guest memory, and to what is open under their descriptors.
const forever = time.Duration(1<<63 - 1)

// free gives back all that build took, in reverse as far as one thing stands on
// another. All parts are closed at once, so one that is stuck keeps no other open. It
// returns after limit at most; what is not closed by then will be as soon as it can.
func (m *Machine) free(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return m.freeUntil(ctx, limit)
}

// freeUntil is free until ctx is done, which is after limit.
func (m *Machine) freeUntil(ctx context.Context, limit time.Duration) error {
	if m.devices.com1 != nil {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		m.devices.com1.Close(now) // nothing moves its interrupt any more
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
			if p != m.base || !stuck { // it waits for the others
				errs = append(errs, &StuckError{p.name, limit})
			}
			stuck = true
		}
	}
	if m.own != nil {
		errs = append(errs, m.own.Close()) // what is stuck has what it needs of them
	}
	return errors.Join(errs...)
}

// panicLimit is how long the end may take after a panic, and then how long Close
// may: what waits for a lock that the panicking goroutine held waits for ever.
const panicLimit = 10 * time.Second

// panicked is the owner of all goroutines of the machine. It makes a panic the
// machine's end, and not the whole program's: that may have a terminal to restore.
func (m *Machine) panicked(p *task.PanicError) {
	if m.bug.CompareAndSwap(nil, p) {
		close(m.broken)
		task.Owner(m.panicked).AfterFunc(m.grace, func() { close(m.lost) })
	} else {
		m.log.Error("another internal error, on the way to the end", "panic", p.Value, "stack", string(p.Stack))
	}
	m.finish(ending{err: p})
}

// Close ends the machine if it runs, and gives all that it holds back to the
// host, but for what a *StuckError names. Every other method fails from then on. A
// panic that Run has not returned is in the error.
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
		limit = m.grace / 2 // it has waited before
	}
	return m.free(limit)
}

// setClosed returns what ends Run, nil if that was not called. After a panic, Pause
// or Resume may hold the lock for ever; then Run has been called, and ends.
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

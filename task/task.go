// Package task is how goroutines are started: a panic on one does not end the
// program behind everybody's back, but is handed to whoever owns it, with its
// stack. All goroutines of ours are started here, timers' too; go test . finds
// those that are not.
//
// What cannot be caught by anybody are Go's fatal errors (two goroutines in one
// map, a stack or memory that is used up) and panics on goroutines that a module
// of others starts and that call nothing of ours.
package task

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Owner is told of each panic of its goroutines, on the goroutine itself, once
// all deferred calls below have been made. Locks that the goroutine did not
// release by such a call are held for ever: an Owner takes none that its
// goroutines take, and does not wait for them. Under a nil Owner a panic is Go's,
// and ends the program.
type Owner func(*PanicError)

// PanicError is a fault of this program.
type PanicError struct {
	Value any    // of the panic
	Stack []byte // as runtime/debug.Stack prints it
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("internal error: %v\n%s", e.Value, e.Stack)
}

// Unwrap returns the error that the panic's value is, if it is one.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Rescue is deferred. It hands the panic that it finds to o.
func (o Owner) Rescue() {
	if o == nil {
		return // and the panic goes on
	}
	if r := recover(); r != nil {
		o(newPanic(r))
	}
}

func newPanic(value any) *PanicError {
	if p, ok := value.(*PanicError); ok {
		return p // that of another goroutine, raised again by Each
	}
	return &PanicError{value, debug.Stack()}
}

// run is all that a goroutine does.
func (o Owner) run(f func()) {
	defer o.Rescue()
	// An address that is not mapped any more, or behind which the host has lost
	// the page, is a panic then, and not the program's end.
	debug.SetPanicOnFault(true)
	f()
}

// Go runs f on a goroutine.
func (o Owner) Go(f func()) { go o.run(f) }

// AfterFunc is time.AfterFunc.
func (o Owner) AfterFunc(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { o.run(f) })
}

// ContextFunc is context.AfterFunc.
func (o Owner) ContextFunc(ctx context.Context, f func()) (stop func() bool) {
	return context.AfterFunc(ctx, func() { o.run(f) })
}

// Group is goroutines that are waited for. Like that of a sync.WaitGroup, its zero
// value is of use, and has no owner.
type Group struct {
	Owner Owner
	wait  sync.WaitGroup
}

// Go runs f on a goroutine of the group.
func (g *Group) Go(f func()) {
	g.wait.Add(1)
	go func() {
		defer g.wait.Done() // when the owner knows
		g.Owner.run(f)
	}()
}

// Add and Done count one goroutine that Go did not start, such as one of a
// module's, which defers Owner.Rescue itself.
func (g *Group) Add()  { g.wait.Add(1) }
func (g *Group) Done() { g.wait.Done() }

// Wait waits until all have ended, by a panic or otherwise.
func (g *Group) Wait() { g.wait.Wait() }

// Each calls f with 0 to n-1, all at once, and returns when all have. The first
// panic of them is raised again in the caller.
func Each(n int, f func(i int)) {
	var first *PanicError
	var once sync.Once
	g := Group{Owner: func(p *PanicError) { once.Do(func() { first = p }) }}
	for i := range n {
		g.Go(func() { f(i) })
	}
	g.Wait()
	if first != nil {
		panic(first)
	}
}

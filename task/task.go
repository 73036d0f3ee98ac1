// Package task starts goroutines. A panic on one does not end the whole program; it is
// passed to the goroutine's owner, with its stack. All goroutines of this program are
// started here, including timers; go test . finds those that are not.
//
// Two things cannot be caught: Go's fatal errors (two goroutines in one map, exhausted
// stack or memory), and panics on goroutines that other modules start and that call
// none of our code.
package task

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Owner is told of each panic of its goroutines, on the panicking goroutine, after its
// deferred calls have run. Locks that these do not release are held forever: an Owner
// must not take locks that its goroutines take, and must not wait for them. Under a
// nil Owner a panic is Go's, and ends the program.
type Owner func(*PanicError)

// PanicError is a bug in this program.
type PanicError struct {
	Value any    // the panic's value
	Stack []byte // as runtime/debug.Stack prints it
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("internal error: %v\n%s", e.Value, e.Stack)
}

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Rescue must be deferred. It recovers a panic and passes it to o.
func (o Owner) Rescue() {
	if o == nil {
		return // the panic continues
	}
	if r := recover(); r != nil {
		o(newPanic(r))
	}
}

func newPanic(value any) *PanicError {
	if p, ok := value.(*PanicError); ok {
		return p // from another goroutine, raised again by Each
	}
	return &PanicError{value, debug.Stack()}
}

// run is the body of a goroutine.
func (o Owner) run(f func()) {
	defer o.Rescue()
	// Access to an unmapped address, or to a page that the host has lost, is then
	// a panic and does not end the program.
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

// Group is a set of goroutines to wait for. Like a sync.WaitGroup, its zero value is
// ready to use; it has no owner.
type Group struct {
	Owner Owner
	wait  sync.WaitGroup
}

// Go runs f on a goroutine of the group.
func (g *Group) Go(f func()) {
	g.wait.Add(1)
	go func() {
		defer g.wait.Done() // after the owner was told
		g.Owner.run(f)
	}()
}

// Add and Done count one goroutine that Go did not start, such as one started by a
// module, which defers Owner.Rescue itself.
func (g *Group) Add()  { g.wait.Add(1) }
func (g *Group) Done() { g.wait.Done() }

// Wait waits until all have ended, normally or by a panic.
func (g *Group) Wait() { g.wait.Wait() }

// Each calls f with 0 to n-1 concurrently, and returns when all calls have. Their
// first panic is raised again in the caller.
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

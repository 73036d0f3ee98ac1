package main

import (
	"fmt"
	"os"
	"sync/atomic"

	"vmm/console"
	"vmm/task"
)

// rescuer owns the command's goroutines, including main's. If vmm itself panics there, it
// restores the terminal, so that the report can be read. (A machine owns its own
// goroutines, and ends in order.)
type rescuer struct {
	con atomic.Pointer[console.Console] // nil: none is open
}

// panicked is a task.Owner.
func (r *rescuer) panicked(p *task.PanicError) {
	if con := r.con.Load(); con != nil {
		con.Restore()
	}
	fmt.Fprintf(os.Stderr, "vmm: %v", p)
	os.Exit(exitBug)
}

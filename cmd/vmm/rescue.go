package main

import (
	"fmt"
	"os"
	"sync/atomic"

	"vmm/console"
	"vmm/task"
)

// rescuer owns the goroutines of the command, main's too: should vmm itself go
// wrong there, the terminal is given back as it was found, and the report can be
// read. (A machine owns its goroutines itself, and ends in order.)
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

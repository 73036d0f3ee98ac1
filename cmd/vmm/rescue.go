package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"vmm/console"
)

// rescue is deferred at the top of every goroutine that the command starts, and
// of main: should vmm itself go wrong there, the terminal is given back as it
// was found, and the report can be read. con may be nil. (The threads of vCPUs
// report a *machine.PanicError instead, which ends the machine in order.)
func rescue(con *console.Console) {
	r := recover()
	if r == nil {
		return
	}
	if con != nil {
		con.Restore()
	}
	fmt.Fprintf(os.Stderr, "vmm: internal error: %v\n%s", r, debug.Stack())
	os.Exit(exitBug)
}

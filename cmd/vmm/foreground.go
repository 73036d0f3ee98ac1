package main

import (
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"vmm/service"
	"vmm/task"
)

// foreground is the guest of this process, as signals and the console's keys see
// it. The console is there before the guest is.
type foreground struct {
	timeout time.Duration
	rescuer
	guest atomic.Pointer[service.Guest] // nil at first
}

// failLimit is how long the guest may take to end after a panic of what is around
// it. A machine takes up to 20 s for its own.
const failLimit = 30 * time.Second

// panicked is a task.Owner, of goroutines that are no machine's. A guest that runs
// ends in order, and the command with it.
func (g *foreground) panicked(p *task.PanicError) {
	guest := g.guest.Load()
	if guest == nil || !guest.Fail(p) {
		g.rescuer.panicked(p)
	}
	if con := g.con.Load(); con != nil {
		con.Restore()
	}
	task.Owner(g.rescuer.panicked).AfterFunc(failLimit, func() { g.rescuer.panicked(p) })
}

// handleSignals makes the first SIGINT, SIGTERM or SIGHUP press the power
// button and the second one stop the guest at once, but for those that the process
// was started to ignore. The function that it
// returns undoes that.
func (g *foreground) handleSignals() (undo func()) {
	c := make(chan os.Signal, 2)
	signal.Notify(c, unignored(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)...)
	task.Owner(g.panicked).Go(func() {
		for s := range c {
			g.guest.Load().Stop(s.(syscall.Signal), g.timeout) // fails if it has ended
		}
	})
	return func() {
		signal.Stop(c) // nothing is sent from here on
		close(c)
	}
}

// quit is Ctrl-a x.
func (g *foreground) quit() {
	if guest := g.guest.Load(); guest != nil {
		guest.Kill(syscall.SIGINT)
	}
}

func (g *foreground) sendBreak() {
	if guest := g.guest.Load(); guest != nil {
		guest.SendBreak()
	}
}

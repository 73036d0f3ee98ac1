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

// foreground is the guest of this process, as signals and the console's keys see it. The
// console exists before the guest does.
type foreground struct {
	timeout time.Duration
	rescuer
	guest atomic.Pointer[service.Guest] // nil at first
}

// failLimit is how long the guest may take to end after a panic outside its machine. A
// machine takes up to 20 s for its own.
const failLimit = 30 * time.Second

// panicked is a task.Owner for goroutines that do not belong to a machine. A running
// guest ends in order, and the command with it.
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

// handleSignals makes the first SIGINT, SIGTERM or SIGHUP press the power button and the
// second stop the guest at once. Signals that were ignored when the process started stay
// ignored. The returned function undoes this.
func (g *foreground) handleSignals() (undo func()) {
	c := make(chan os.Signal, 2)
	signal.Notify(c, unignored(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)...)
	task.Owner(g.panicked).Go(func() {
		for s := range c {
			g.guest.Load().Stop(s.(syscall.Signal), g.timeout) // fails if the guest has ended
		}
	})
	return func() {
		signal.Stop(c) // nothing is sent from here on
		close(c)
	}
}

// quit handles Ctrl-a x.
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

package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"vmm/console"
	"vmm/machine"
)

// guest is the machine that runs, as signals and the console's keys see it.
type guest struct {
	log     *slog.Logger
	timeout time.Duration
	console *console.Console

	mu      sync.Mutex
	machine *machine.Machine   // guarded by mu; nil between two lives
	kill    context.CancelFunc // guarded by mu; likewise
	sig     syscall.Signal     // guarded by mu; the first that asked to stop
}

// runOnce is one life of the guest, from power-on to its end. in may be nil.
func (g *guest) runOnce(ctx context.Context, c machine.Config, in *inbox) (machine.End, error) {
	if in != nil {
		session := in.open()
		defer session.Close()
		c.ConsoleIn = session
	}
	m, err := machine.New(c)
	if err != nil {
		return machine.End{}, err
	}
	defer m.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.mu.Lock()
	g.machine, g.kill = m, cancel
	if g.sig != 0 {
		cancel() // it came while there was no machine
	}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.machine, g.kill = nil, nil
	}()
	return m.Run(ctx)
}

// handleSignals makes the first SIGINT, SIGTERM or SIGHUP press the power
// button and the second one stop the guest at once. The function that it
// returns undoes that.
func (g *guest) handleSignals() (undo func()) {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		defer rescue(g.console)
		for s := range c {
			g.signal(s.(syscall.Signal))
		}
	}()
	return func() {
		signal.Stop(c) // nothing is sent from here on
		close(c)
	}
}

func (g *guest) signal(s syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sig != 0 || g.machine == nil {
		g.stop(s)
		return
	}
	g.sig = s
	if err := g.machine.PressPowerButton(); err != nil {
		g.stop(s) // not running yet
		return
	}
	g.log.Info("asked the guest to power off; a second signal stops it at once", "signal", s, "timeout", g.timeout)
	time.AfterFunc(g.timeout, func() {
		defer rescue(g.console)
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.machine == nil {
			return // it did, or there will not be another
		}
		g.log.Warn("the guest did not power off in time", "timeout", g.timeout)
		g.stop(s)
	})
}

// quit is Ctrl-a x.
func (g *guest) quit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop(syscall.SIGINT)
}

// stop ends the guest without asking it. mu is held.
func (g *guest) stop(s syscall.Signal) {
	if g.sig == 0 {
		g.sig = s
	}
	if g.kill != nil {
		g.kill()
	}
}

func (g *guest) sendBreak() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.machine != nil {
		g.machine.SendBreak()
	}
}

func (g *guest) stoppedBy() syscall.Signal {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sig
}

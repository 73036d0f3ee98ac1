package service

import (
	"errors"
	"syscall"
	"time"

	"vmm/api"
	"vmm/machine"
)

// current returns the running machine.
func (g *Guest) current() (vm, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.machine == nil {
		return nil, &machine.StateError{State: string(g.about.State)}
	}
	return g.machine, nil
}

// Pause and Resume call the machine's methods.
func (g *Guest) Pause() error  { return g.change(vm.Pause, api.Paused) }
func (g *Guest) Resume() error { return g.change(vm.Resume, api.Running) }

// change brings the machine to a state. It may take as long as the host's disks do, so
// it holds no lock.
func (g *Guest) change(f func(vm) error, to api.State) error {
	m, err := g.current()
	if err != nil {
		return err
	}
	if err := f(m); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.machine == m {
		g.about.State = to
		g.describe()
	}
	return nil
}

// Stop asks the guest to power off as sig would, and kills it if it has not done so
// after the timeout. A second Stop kills it at once. A paused guest is resumed, because
// it could not respond otherwise. A guest that is still booting will notice: the button
// is pressed again and again.
func (g *Guest) Stop(sig syscall.Signal, timeout time.Duration) error {
	if g.About().State == api.Paused {
		g.Resume() // if this fails, the timeout still applies
	}
	m, err := g.ask(sig)
	if m == nil || err != nil {
		return err
	}
	g.o.Owner.Go(func() {
		if !press(m) {
			g.Kill(sig)
		}
	})
	g.log.Info("asked the guest to power off; a second signal stops it at once", "signal", sig, "timeout", timeout)
	g.o.Owner.AfterFunc(timeout, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.machine == nil {
			return // it has powered off, or there will be no next life
		}
		g.log.Warn("the guest did not power off in time", "timeout", timeout)
		g.end(sig)
	})
	return nil
}

// pressAgain is the time between two presses of the power button. A press is an event
// that is not stored: a kernel without the driver, and a driver without a listener,
// lose it. A guest that has handled the first press ignores the others.
const pressAgain = time.Second

// press presses a machine's power button until its guest has ended. It returns false
// if the guest had ended before any press, so that all that remains is output that is
// not being read. A press may take long: a pause that waits for the host's disks may be
// in progress.
func press(m vm) (heard bool) {
	again := time.NewTicker(pressAgain)
	defer again.Stop()
	for {
		err := m.PressPowerButton() // fails, too, if it is not running yet
		if errors.Is(err, machine.ErrEnded) {
			return heard
		}
		heard = heard || err == nil
		select {
		case <-again.C:
		case <-m.Done():
			return true
		}
	}
}

// ask returns the machine whose power button is to be pressed. It ends the guest
// instead if there is no machine or the guest was asked before.
func (g *Guest) ask(sig syscall.Signal) (vm, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.about.State == api.Ended {
		return nil, &machine.StateError{State: string(api.Ended)}
	}
	if g.sig != 0 || g.machine == nil {
		g.end(sig)
		return nil, nil
	}
	g.asked(sig)
	return g.machine, nil
}

// Kill ends the guest without asking it.
func (g *Guest) Kill(sig syscall.Signal) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.about.State == api.Ended {
		return &machine.StateError{State: string(api.Ended)}
	}
	g.end(sig)
	return nil
}

// asked records that the guest is to end. mu is held.
func (g *Guest) asked(sig syscall.Signal) {
	if g.sig == 0 {
		g.sig = sig
		close(g.stop)
	}
}

// end ends the guest. mu is held.
func (g *Guest) end(sig syscall.Signal) {
	g.asked(sig)
	if g.kill != nil {
		g.kill()
	}
}

// SendBreak sends a break over the serial line.
func (g *Guest) SendBreak() error {
	m, err := g.current()
	if err == nil {
		m.SendBreak()
	}
	return err
}

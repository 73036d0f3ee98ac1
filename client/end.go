package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"vmm/api"
	"vmm/roster"
)

// Stop presses the power button, and returns when the guest's process has given up
// its name. The guest is killed if it has not powered off after the timeout; nil
// is what its vmm was told. So is a process that has not answered in that time.
func (g *Guest) Stop(ctx context.Context, timeout *time.Duration) error {
	var body api.Stop
	patience := g.limits.stop
	if timeout != nil {
		ms := timeout.Milliseconds()
		body.TimeoutMs, patience = &ms, *timeout
	}
	// A process that was stopped may be continued, and finds the question waiting.
	deadline := time.Now().Add(patience + g.limits.leave)
	asking, cancel := context.WithDeadlineCause(ctx, deadline, ErrSilent)
	defer cancel()
	r, err := g.api.Stop(asking, body)
	if err == nil {
		defer r.Body.Close()
		if r.StatusCode >= http.StatusMultipleChoices {
			return g.refused(r)
		}
	} else if err := g.lost(asking, err); errors.Is(err, ErrSilent) {
		return g.force(ctx)
	} else if !errors.Is(err, ErrEnded) {
		return err
	}
	for {
		_, err := g.Wait(ctx)
		switch {
		case errors.Is(err, ErrSilent) && time.Now().After(deadline):
			return g.force(ctx)
		case errors.Is(err, ErrSilent):
			continue
		case err != nil && !errors.Is(err, ErrEnded):
			return err
		}
		return g.quit(ctx)
	}
}

// Kill ends the guest as if its power failed, and returns when its process has
// given up its name. A process that does not answer is killed itself.
func (g *Guest) Kill(ctx context.Context) error {
	err := g.call(ctx, g.limits.kill, nil, func(ctx context.Context) (*http.Response, error) { return g.api.Kill(ctx) })
	if errors.Is(err, ErrSilent) {
		return g.force(ctx)
	}
	return g.quit(ctx) // whatever is wrong: it has a time for that
}

// quit waits until the process of a guest that ends has gone, and sees to that.
func (g *Guest) quit(ctx context.Context) error {
	if err := g.leaveIn(ctx, g.limits.leave); !errors.Is(err, ErrSilent) {
		return err
	}
	return g.force(ctx)
}

// force ends the guest's process without its help. What it would have put in order
// at its end it does not: a terminal, its folder if that is not to be kept.
func (g *Guest) force(ctx context.Context) error {
	killErr := roster.Kill(g.Entry)
	if killErr != nil && roster.Alive(g.Entry) {
		return killErr
	}
	err := g.leaveIn(ctx, g.limits.exit)
	if errors.Is(err, ErrSilent) {
		return fmt.Errorf("guest %s: its process was killed, and does not end: the host's kernel does not let it; see its state with: ps", g.Name)
	}
	return err
}

// leaveIn is Leave with a limit, after which it is ErrSilent.
func (g *Guest) leaveIn(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, ErrSilent)
	defer cancel()
	return g.Leave(ctx)
}

// Leave waits until the guest's process has given up its name, or is gone.
func (g *Guest) Leave(ctx context.Context) error {
	for roster.Alive(g.Entry) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("guest %s: %w", g.Name, context.Cause(ctx))
		case <-time.After(leavePoll):
		}
	}
	return nil
}

// leavePoll is how often it is looked: what is left is to close files.
const leavePoll = 2 * time.Millisecond

// Wait waits for the guest's end, and returns how it ended.
func (g *Guest) Wait(ctx context.Context) (end api.End, err error) {
	err = g.call(ctx, 0, &end, func(ctx context.Context) (*http.Response, error) { return g.api.Wait(ctx) })
	return end, err
}

// End returns how the guest ended, and waits for that, and a while for its process
// to give up its name: who asks may remove what is kept next. The end is known of
// those too that have ended before, as long as they are kept.
func (g *Guest) End(ctx context.Context) (api.End, error) {
	end, err := g.Wait(ctx)
	if err == nil {
		g.leaveIn(ctx, g.limits.leave) // one that is slow to go has ended all the same
	}
	if !errors.Is(err, ErrEnded) {
		return end, err
	}
	about, err := Describe(roster.Entry{Name: g.Name, Dir: g.Dir}) // not alive any more
	if err != nil {
		return api.End{}, err
	}
	return *about.End, nil
}

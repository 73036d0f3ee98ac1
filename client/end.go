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
// its name. If the guest has not powered off after the timeout, it is killed; nil
// means the timeout that its vmm was started with. A process that does not answer in
// that time is killed, too.
func (g *Guest) Stop(ctx context.Context, timeout *time.Duration) error {
	var body api.Stop
	patience := g.limits.stop
	if timeout != nil {
		ms := timeout.Milliseconds()
		body.TimeoutMs, patience = &ms, *timeout
	}
	// A stopped process may be continued; it then finds the request waiting.
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
	return g.quit(ctx) // whatever is wrong: quit has its own time limit
}

// quit waits until the process of a guest that is ending has gone, and kills it if it
// does not go.
func (g *Guest) quit(ctx context.Context) error {
	if err := g.leaveIn(ctx, g.limits.leave); !errors.Is(err, ErrSilent) {
		return err
	}
	return g.force(ctx)
}

// force ends the guest's process without its help. The process then does not do its own
// cleanup: the terminal is not restored, and a folder that is not to be kept remains.
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

// leaveIn is Leave with a time limit, after which it returns ErrSilent.
func (g *Guest) leaveIn(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, ErrSilent)
	defer cancel()
	return g.Leave(ctx)
}

// Leave waits until the guest's process has given up its name or has gone.
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

// leavePoll is the time between two checks: all that is left to do is to close files.
const leavePoll = 2 * time.Millisecond

// Wait waits for the guest's end, and returns how it ended.
func (g *Guest) Wait(ctx context.Context) (end api.End, err error) {
	err = g.call(ctx, 0, &end, func(ctx context.Context) (*http.Response, error) { return g.api.Wait(ctx) })
	return end, err
}

// End waits for the guest's end and returns how it ended. It then waits a while for the
// process to give up its name, because the caller may go on to remove the guest. For
// guests that ended earlier the end is known, too, as long as they are kept.
func (g *Guest) End(ctx context.Context) (api.End, error) {
	end, err := g.Wait(ctx)
	if err == nil {
		g.leaveIn(ctx, g.limits.leave) // a guest whose process is slow to go has ended all the same
	}
	if !errors.Is(err, ErrEnded) {
		return end, err
	}
	about, err := Describe(roster.Entry{Name: g.Name, Dir: g.Dir}) // no longer alive
	if err != nil {
		return api.End{}, err
	}
	return *about.End, nil
}

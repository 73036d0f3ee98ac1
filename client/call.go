package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// limits are how long a guest's process may take. One that answers, be it that it
// is busy, does so in milliseconds.
type limits struct {
	beat    time.Duration // from one question whether it is there to the next
	silence time.Duration // until the answer to that
	call    time.Duration // for what is asked: a pause waits 30 s for the host's disks
	kill    time.Duration // for the answer to who wants it dead
	leave   time.Duration // from the guest's end to that of its process
	exit    time.Duration // for the host's kernel to end it: memory is given back first
	stop    time.Duration // a --stop-timeout that is not known
}

var usual = limits{
	beat: 5 * time.Second, silence: 10 * time.Second, call: time.Minute,
	kill: 5 * time.Second, leave: 10 * time.Second, exit: time.Minute, stop: 30 * time.Second,
}

// operation is one of the api.
type operation func(ctx context.Context) (*http.Response, error)

// do is call of what answers with nothing.
func (g *Guest) do(ctx context.Context, f operation) error {
	return g.call(ctx, g.limits.call, nil, f)
}

// call takes what an operation returns: its answer, decoded into v, or what is
// wrong. v may be nil. A limit of 0 is none: then it takes as long as the process
// is there.
func (g *Guest) call(ctx context.Context, limit time.Duration, v any, f operation) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer g.attend(ctx, cancel, limit)()
	r, err := f(ctx)
	if err != nil {
		return g.lost(ctx, err)
	}
	defer r.Body.Close()
	if r.StatusCode >= http.StatusMultipleChoices {
		return g.refused(r)
	}
	if v == nil {
		return nil
	}
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		return g.lost(ctx, err)
	}
	return nil
}

// attend cancels a call, because of ErrSilent, whose guest's process does not
// answer others any more, or that has taken more than limit, until done is called.
func (g *Guest) attend(ctx context.Context, cancel context.CancelCauseFunc, limit time.Duration) (done func()) {
	ctx, end := context.WithCancel(ctx)
	if limit > 0 {
		late := g.Owner.AfterFunc(limit, func() { cancel(ErrSilent) })
		g.Owner.ContextFunc(ctx, func() { late.Stop() })
	}
	g.Owner.Go(func() {
		beat := time.NewTicker(g.limits.beat)
		defer beat.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-beat.C:
				if !g.answers(ctx) && ctx.Err() == nil {
					cancel(ErrSilent)
					return
				}
			}
		}
	})
	return end
}

// answers reports whether the guest's process says anything, or has gone, which
// others will see.
func (g *Guest) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, g.limits.silence)
	defer cancel()
	r, err := g.api.Inspect(ctx)
	if err == nil {
		r.Body.Close()
	}
	return !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, unix.EAGAIN)
}

package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// limits are how long a guest's process may take. One that works, even if it is busy,
// answers in milliseconds.
type limits struct {
	beat    time.Duration // between two checks that the process answers
	silence time.Duration // until such a check is answered
	call    time.Duration // for a request: a pause waits 30 s for the host's disks
	kill    time.Duration // for the answer to a kill request
	leave   time.Duration // from the guest's end to the end of its process
	exit    time.Duration // for the host's kernel to end the process: it frees the memory first
	stop    time.Duration // assumed for a --stop-timeout that is not known
}

var usual = limits{
	beat: 5 * time.Second, silence: 10 * time.Second, call: time.Minute,
	kill: 5 * time.Second, leave: 10 * time.Second, exit: time.Minute, stop: 30 * time.Second,
}

// operation is one operation of the API.
type operation func(ctx context.Context) (*http.Response, error)

// do is call for an operation without a result.
func (g *Guest) do(ctx context.Context, f operation) error {
	return g.call(ctx, g.limits.call, nil, f)
}

// call decodes an operation's answer into v, or returns its error. v may be nil. A
// limit of 0 means none: the call may take as long as the process answers.
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

// attend cancels a call with ErrSilent if the guest's process stops answering other
// requests, or if the call takes longer than limit. It stops when done is called.
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

// answers reports whether the guest's process responds. A process that has gone counts
// as well: other code notices that.
func (g *Guest) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, g.limits.silence)
	defer cancel()
	r, err := g.api.Inspect(ctx)
	if err == nil {
		r.Body.Close()
	}
	return !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, unix.EAGAIN)
}

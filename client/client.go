// Package client asks guests of this host, by their names, what package api has:
// what the subcommands of vmm do, for programs.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"vmm/api"
	"vmm/roster"
	"vmm/task"
)

// Guest is a guest of this host. It may end at any time: then calls return an
// error that is ErrEnded.
type Guest struct {
	roster.Entry
	Owner task.Owner // of its goroutines

	http *http.Client
	api  *api.Client
}

// ErrEnded is what calls return whose guest's process is gone.
var ErrEnded = errors.New("the guest has ended")

// base is only for form: all connections go to the guest's socket.
const base = "http://guest"

// Open returns the guest of that name.
func Open(r *roster.Roster, name string) (*Guest, error) {
	e, err := r.Find(name)
	if err != nil {
		return nil, err
	}
	return open(e)
}

func open(e roster.Entry) (*Guest, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.Socket())
	}
	g := &Guest{Entry: e, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}}}
	var err error
	g.api, err = api.NewClient(base+"/v1", api.WithHTTPClient(g.http))
	return g, err
}

// Close gives the connections back.
func (g *Guest) Close() { g.http.CloseIdleConnections() }

// Error is an answer that is none.
type Error struct {
	Guest  string
	Status int // of HTTP
	Text   string
}

func (e *Error) Error() string { return fmt.Sprintf("guest %s: %s", e.Guest, e.Text) }

// lost says of a failed connection what it means.
func (g *Guest) lost(err error) error {
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("guest %s: %w", g.Name, ErrEnded)
	}
	return fmt.Errorf("guest %s: %w", g.Name, err)
}

// finish takes what an operation of the api returns: its answer, decoded into v, or
// what is wrong. v may be nil.
func (g *Guest) finish(v any, r *http.Response, err error) error {
	if err != nil {
		return g.lost(err)
	}
	defer r.Body.Close()
	if r.StatusCode >= http.StatusMultipleChoices {
		return g.refused(r)
	}
	if v == nil {
		return nil
	}
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		return g.lost(err)
	}
	return nil
}

// refused reads why.
func (g *Guest) refused(r *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10)) // what there is of it
	var e api.Error
	if json.Unmarshal(body, &e) != nil || e.Error == "" {
		e.Error = r.Status
	}
	return &Error{g.Name, r.StatusCode, e.Error}
}

// do is finish of an operation that answers with nothing.
func (g *Guest) do(r *http.Response, err error) error { return g.finish(nil, r, err) }

// About asks the guest what it is.
func (g *Guest) About(ctx context.Context) (about api.Guest, err error) {
	r, err := g.api.Inspect(ctx)
	err = g.finish(&about, r, err) // not in the return, where Go leaves the order open
	return about, err
}

// Pause stops all vCPUs and devices; Resume undoes it.
func (g *Guest) Pause(ctx context.Context) error { return g.do(g.api.Pause(ctx)) }

// Resume undoes Pause.
func (g *Guest) Resume(ctx context.Context) error { return g.do(g.api.Resume(ctx)) }

// SendBreak sends a break over the serial line.
func (g *Guest) SendBreak(ctx context.Context) error { return g.do(g.api.SendBreak(ctx)) }

// Stop presses the power button. The guest is killed if it has not powered off
// after the timeout; nil is what its vmm was told. Wait tells of the end.
func (g *Guest) Stop(ctx context.Context, timeout *time.Duration) error {
	var body api.Stop
	if timeout != nil {
		ms := timeout.Milliseconds()
		body.TimeoutMs = &ms
	}
	return g.do(g.api.Stop(ctx, body))
}

// Kill ends the guest as if its power failed.
func (g *Guest) Kill(ctx context.Context) error { return g.do(g.api.Kill(ctx)) }

// Wait waits for the guest's end, and returns how it ended.
func (g *Guest) Wait(ctx context.Context) (end api.End, err error) {
	r, err := g.api.Wait(ctx)
	err = g.finish(&end, r, err)
	return end, err
}

// Stats returns what the guest has done since it was last powered on.
func (g *Guest) Stats(ctx context.Context) (stats api.Stats, err error) {
	r, err := g.api.Stats(ctx)
	err = g.finish(&stats, r, err)
	return stats, err
}

// SetBalloon asks the guest to leave so many bytes of its memory to the host.
func (g *Guest) SetBalloon(ctx context.Context, bytes int64) error {
	return g.do(g.api.SetBalloon(ctx, api.Balloon{Bytes: bytes}))
}

// End returns how the guest ended, and waits for that. It is known of those too
// that have ended before, as long as they are kept.
func (g *Guest) End(ctx context.Context) (api.End, error) {
	end, err := g.Wait(ctx)
	if !errors.Is(err, ErrEnded) {
		return end, err
	}
	about, err := Describe(roster.Entry{Name: g.Name, Dir: g.Dir}) // not alive any more
	if err != nil {
		return api.End{}, err
	}
	return *about.End, nil
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

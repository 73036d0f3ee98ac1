// Package client sends the requests of package api to guests of this host, by name:
// it is to programs what vmm's subcommands are to people.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"vmm/api"
	"vmm/roster"
	"vmm/task"
)

// Guest is a guest of this host. It may end at any time; calls then return an error
// that is ErrEnded. No call waits forever for a process that hangs; such calls return
// an error that is ErrSilent.
type Guest struct {
	roster.Entry
	Owner task.Owner // of the client's goroutines

	http   *http.Client
	api    *api.Client
	limits limits
}

// ErrEnded is returned by calls when the guest's process has gone.
var ErrEnded = errors.New("the guest has ended")

// ErrSilent is returned by calls when the guest's process exists but does not answer.
var ErrSilent = errors.New("its vmm does not answer: it hangs, or was stopped by a signal")

// base is a placeholder: all connections go to the guest's socket.
const base = "http://guest"

// Open returns the guest with that name.
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
	g := &Guest{Entry: e, limits: usual, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}}}
	var err error
	g.api, err = api.NewClient(base+"/v1", api.WithHTTPClient(g.http))
	return g, err
}

// Close closes idle connections.
func (g *Guest) Close() { g.http.CloseIdleConnections() }

// Error is an error answer.
type Error struct {
	Guest  string
	Status int // the HTTP status
	Text   string
}

func (e *Error) Error() string { return fmt.Sprintf("guest %s: %s", e.Guest, e.Text) }

// lost returns the error that a failed connection stands for.
func (g *Guest) lost(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), ErrSilent), errors.Is(err, unix.EAGAIN): // the latter: too many connections wait to be accepted
		return fmt.Errorf("guest %s: %w; end it with: vmm kill %[1]s", g.Name, ErrSilent)
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("guest %s: %w", g.Name, ErrEnded)
	}
	return fmt.Errorf("guest %s: %w", g.Name, err)
}

// refused returns the error that an answer contains.
func (g *Guest) refused(r *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10)) // as much as there is
	var e api.Error
	if json.Unmarshal(body, &e) != nil || e.Error == "" {
		e.Error = r.Status
	}
	return &Error{g.Name, r.StatusCode, e.Error}
}

// About asks the guest to describe itself.
func (g *Guest) About(ctx context.Context) (about api.Guest, err error) {
	err = g.call(ctx, g.limits.call, &about, func(ctx context.Context) (*http.Response, error) { return g.api.Inspect(ctx) })
	return about, err
}

// Pause stops all vCPUs and devices; Resume undoes it.
func (g *Guest) Pause(ctx context.Context) error {
	return g.do(ctx, func(ctx context.Context) (*http.Response, error) { return g.api.Pause(ctx) })
}

// Resume undoes Pause.
func (g *Guest) Resume(ctx context.Context) error {
	return g.do(ctx, func(ctx context.Context) (*http.Response, error) { return g.api.Resume(ctx) })
}

// SendBreak sends a break over the serial line.
func (g *Guest) SendBreak(ctx context.Context) error {
	return g.do(ctx, func(ctx context.Context) (*http.Response, error) { return g.api.SendBreak(ctx) })
}

// Stats returns what the guest has done since it was last powered on.
func (g *Guest) Stats(ctx context.Context) (stats api.Stats, err error) {
	err = g.call(ctx, g.limits.call, &stats, func(ctx context.Context) (*http.Response, error) { return g.api.Stats(ctx) })
	return stats, err
}

// SetBalloon asks the guest to leave that many bytes of its memory to the host.
func (g *Guest) SetBalloon(ctx context.Context, bytes int64) error {
	return g.do(ctx, func(ctx context.Context) (*http.Response, error) {
		return g.api.SetBalloon(ctx, api.Balloon{Bytes: bytes})
	})
}

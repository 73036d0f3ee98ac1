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
)

// Guest is a guest of this host. It may end at any time: then calls return an
// error that is ErrEnded.
type Guest struct {
	roster.Entry
	http *http.Client
	api  *api.ClientWithResponses
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
	g.api, err = api.NewClientWithResponses(base+"/v1", api.WithHTTPClient(g.http))
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

// check turns what came back into an error, unless it is what was asked for.
func (g *Guest) check(r *http.Response, body []byte, want int) error {
	if r.StatusCode == want {
		return nil
	}
	var e api.Error
	if json.Unmarshal(body, &e) != nil || e.Error == "" {
		e.Error = r.Status
	}
	return &Error{g.Name, r.StatusCode, e.Error}
}

// lost says of a failed connection what it means.
func (g *Guest) lost(err error) error {
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("guest %s: %w", g.Name, ErrEnded)
	}
	return fmt.Errorf("guest %s: %w", g.Name, err)
}

// About asks the guest what it is.
func (g *Guest) About(ctx context.Context) (api.Guest, error) {
	r, err := g.api.InspectWithResponse(ctx)
	if err != nil {
		return api.Guest{}, g.lost(err)
	}
	if err := g.check(r.HTTPResponse, r.Body, http.StatusOK); err != nil || r.JSON200 == nil {
		return api.Guest{}, cmpErr(err)
	}
	return *r.JSON200, nil
}

// errNoBody is for an answer that has the right status and nothing in it.
var errNoBody = errors.New("the answer is empty")

func cmpErr(err error) error {
	if err == nil {
		return errNoBody
	}
	return err
}

// Pause stops all vCPUs and devices; Resume undoes it.
func (g *Guest) Pause(ctx context.Context) error {
	r, err := g.api.PauseWithResponse(ctx)
	if err != nil {
		return g.lost(err)
	}
	return g.check(r.HTTPResponse, r.Body, http.StatusNoContent)
}

// Resume undoes Pause.
func (g *Guest) Resume(ctx context.Context) error {
	r, err := g.api.ResumeWithResponse(ctx)
	if err != nil {
		return g.lost(err)
	}
	return g.check(r.HTTPResponse, r.Body, http.StatusNoContent)
}

// SendBreak sends a break over the serial line.
func (g *Guest) SendBreak(ctx context.Context) error {
	r, err := g.api.SendBreakWithResponse(ctx)
	if err != nil {
		return g.lost(err)
	}
	return g.check(r.HTTPResponse, r.Body, http.StatusNoContent)
}

// Stop presses the power button. The guest is killed if it has not powered off
// after the timeout; nil is what its vmm was told. Wait tells of the end.
func (g *Guest) Stop(ctx context.Context, timeout *time.Duration) error {
	var body api.Stop
	if timeout != nil {
		ms := timeout.Milliseconds()
		body.TimeoutMs = &ms
	}
	r, err := g.api.StopWithResponse(ctx, body)
	if err != nil {
		return g.lost(err)
	}
	return g.check(r.HTTPResponse, r.Body, http.StatusNoContent)
}

// Kill ends the guest as if its power failed.
func (g *Guest) Kill(ctx context.Context) error {
	r, err := g.api.KillWithResponse(ctx)
	if err != nil {
		return g.lost(err)
	}
	return g.check(r.HTTPResponse, r.Body, http.StatusNoContent)
}

// Wait waits for the guest's end, and returns how it ended.
func (g *Guest) Wait(ctx context.Context) (api.End, error) {
	r, err := g.api.WaitWithResponse(ctx)
	if err != nil {
		return api.End{}, g.lost(err)
	}
	if err := g.check(r.HTTPResponse, r.Body, http.StatusOK); err != nil || r.JSON200 == nil {
		return api.End{}, cmpErr(err)
	}
	return *r.JSON200, nil
}

// Stats returns what the guest has done since it was last powered on.
func (g *Guest) Stats(ctx context.Context) (api.Stats, error) {
	r, err := g.api.StatsWithResponse(ctx)
	if err != nil {
		return api.Stats{}, g.lost(err)
	}
	if err := g.check(r.HTTPResponse, r.Body, http.StatusOK); err != nil || r.JSON200 == nil {
		return api.Stats{}, cmpErr(err)
	}
	return *r.JSON200, nil
}

// SetBalloon asks the guest to leave so many bytes of its memory to the host.
func (g *Guest) SetBalloon(ctx context.Context, bytes int64) error {
	r, err := g.api.SetBalloonWithResponse(ctx, api.Balloon{Bytes: bytes})
	if err != nil {
		return g.lost(err)
	}
	return g.check(r.HTTPResponse, r.Body, http.StatusNoContent)
}

// End returns how the guest ended, and waits for that. It is known of those too
// that have ended before, as long as they are kept.
func (g *Guest) End(ctx context.Context) (api.End, error) {
	end, err := g.Wait(ctx)
	if !errors.Is(err, ErrEnded) {
		return end, err
	}
	about, err := Describe(roster.Entry{Name: g.Name, Dir: g.Dir})
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

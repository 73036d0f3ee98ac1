package client

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"

	"vmm/api"
)

// Logs returns the last lines that the guest has printed, or all if lines is negative;
// with follow, also what it prints until it ends. The caller closes the result.
func (g *Guest) Logs(ctx context.Context, follow bool, lines int) (io.ReadCloser, error) {
	p := api.LogsParams{Follow: &follow}
	if lines >= 0 {
		p.Tail = &lines
	}
	return g.stream(ctx, func(ctx context.Context) (*http.Response, error) { return g.api.Logs(ctx, &p) })
}

// Trace returns the exits of the guest's vCPUs as they happen, one JSON object a line.
// The caller closes it.
func (g *Guest) Trace(ctx context.Context) (io.ReadCloser, error) {
	return g.stream(ctx, func(ctx context.Context) (*http.Response, error) { return g.api.Trace(ctx) })
}

// Metrics returns the guest's metrics in Prometheus' text format. The caller
// closes it.
func (g *Guest) Metrics(ctx context.Context) (io.ReadCloser, error) {
	return g.stream(ctx, func(ctx context.Context) (*http.Response, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
		if err != nil {
			return nil, err
		}
		return g.http.Do(request)
	})
}

// stream returns the body of an answer, which must begin in time, or its error.
func (g *Guest) stream(ctx context.Context, f operation) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	begun := g.attend(ctx, cancel, g.limits.call)
	r, err := f(ctx)
	begun()
	if err != nil {
		cancel(nil)
		return nil, g.lost(ctx, err)
	}
	if r.StatusCode != http.StatusOK {
		defer cancel(nil)
		defer r.Body.Close()
		return nil, g.refused(r)
	}
	return &body{r.Body, cancel}, nil
}

// body is a stream's body.
type body struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *body) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}

// Console attaches to the guest's console: what is written is typed, and what is read
// is the guest's output. The caller closes it.
func (g *Guest) Console(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer g.attend(ctx, cancel, g.limits.call)()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", g.Socket())
	if err != nil {
		return nil, g.lost(ctx, err)
	}
	defer g.Owner.ContextFunc(ctx, func() { c.Close() })()
	request, err := http.NewRequest(http.MethodGet, base+"/v1/guest/console", nil)
	if err != nil {
		c.Close()
		return nil, err
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "console")
	in := bufio.NewReader(c)
	err = request.Write(c)
	var r *http.Response
	if err == nil {
		r, err = http.ReadResponse(in, request)
	}
	if err != nil {
		c.Close()
		return nil, g.lost(ctx, err)
	}
	if r.StatusCode != http.StatusSwitchingProtocols {
		defer c.Close()
		return nil, g.refused(r)
	}
	return &attached{c, in}, nil
}

// attached is a connection of which some data was read ahead.
type attached struct {
	net.Conn
	in *bufio.Reader
}

func (a *attached) Read(p []byte) (int, error) { return a.in.Read(p) }

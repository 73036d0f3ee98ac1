package service

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"vmm/api"
	"vmm/machine"
	"vmm/unixsock"
)

// Limits on what a client can make this process store or wait for.
const (
	maxBody      = 64 << 10
	headerLimit  = 10 * time.Second
	idleLimit    = 30 * time.Second     // for a connection between two requests
	maxClients   = machine.Reserved / 4 // each has at most three descriptors, two of them for a log; others wait
	lastRequests = 2 * time.Second      // for answers in progress when the guest has ended
)

// server serves the guest's API, api/openapi.yaml.
type server struct {
	*Guest
	http http.Server
	base context.CancelFunc // of all requests
}

// serve begins to answer on a socket that only the user may connect to.
func (g *Guest) serve(path string) (*server, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{Guest: g, base: cancel}
	s.http = http.Server{
		Handler:           s.guarded(s.handler()),
		ReadHeaderTimeout: headerLimit,
		IdleTimeout:       idleLimit,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelWarn),
	}
	g.o.Owner.Go(func() { s.http.Serve(netutil.LimitListener(l, maxClients)) })
	return s, nil
}

// close lets clients that wait for the guest's end receive their answer.
func (s *server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), lastRequests)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.base()
		return s.http.Close()
	}
	s.base()
	return nil
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	// answer registers an operation that returns a result.
	answer := func(route string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
			if v, err := f(r); err != nil {
				fail(w, err)
			} else if v == nil {
				w.WriteHeader(http.StatusNoContent)
			} else {
				write(w, http.StatusOK, v)
			}
		})
	}
	do := func(route string, f func() error) {
		answer(route, func(*http.Request) (any, error) { return nil, f() })
	}
	answer("GET /v1/guest", func(*http.Request) (any, error) { return s.About(), nil })
	do("POST /v1/guest/pause", s.Pause)
	do("POST /v1/guest/resume", s.Resume)
	do("POST /v1/guest/break", s.SendBreak)
	do("POST /v1/guest/kill", func() error { return s.Kill(syscall.SIGKILL) })
	answer("POST /v1/guest/stop", s.handleStop)
	answer("GET /v1/guest/wait", s.handleWait)
	answer("GET /v1/guest/stats", func(*http.Request) (any, error) { return s.Stats() })
	answer("PUT /v1/guest/balloon", s.handleBalloon)
	mux.HandleFunc("GET /v1/guest/logs", s.handleLogs)
	mux.HandleFunc("GET /v1/guest/console", s.handleConsole)
	mux.HandleFunc("GET /v1/guest/trace", s.handleTrace)
	mux.HandleFunc("GET /metrics", s.handleMetrics)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		write(w, http.StatusNotFound, api.Error{Error: "there is no " + r.Method + " " + r.URL.Path + "; see api/openapi.yaml"})
	})
	return mux
}

// badRequest is a client error.
type badRequest struct{ error }

func (s *server) handleStop(r *http.Request) (any, error) {
	var body api.Stop
	if err := read(r, &body); err != nil {
		return nil, err
	}
	timeout := s.o.StopTimeout
	if body.TimeoutMs != nil {
		const most = int64(24 * time.Hour / time.Millisecond)
		if *body.TimeoutMs < 0 || *body.TimeoutMs > most {
			return nil, badRequest{errors.New("timeoutMs must be from 0 to a day's")}
		}
		timeout = time.Duration(*body.TimeoutMs) * time.Millisecond
	}
	// Stop does not wait, so a client that gives up changes nothing: the timeout still
	// applies. The next request to stop kills the guest at once.
	return nil, s.Stop(syscall.SIGTERM, timeout)
}

func (s *server) handleWait(r *http.Request) (any, error) {
	select {
	case <-s.over:
		return s.About().End, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func (s *server) handleBalloon(r *http.Request) (any, error) {
	var body struct {
		Bytes *int64 `json:"bytes"` // api.Balloon cannot tell a missing value from 0
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.Bytes == nil {
		return nil, badRequest{errors.New("the body: bytes is missing")}
	}
	return nil, s.SetBalloon(*body.Bytes)
}

// read decodes a request's body and refuses unknown fields.
func read(r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badRequest{errors.New("the body: " + err.Error())}
	}
	if _, err := d.Token(); err != io.EOF {
		return badRequest{errors.New("the body: there is more than one value")}
	}
	return nil
}

func write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"internal error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

// fail answers with an error and the status that says whose fault it is.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.As(err, new(badRequest)), errors.As(err, new(*machine.ConfigError)):
		status = http.StatusBadRequest
	case errors.As(err, new(*machine.StateError)):
		status = http.StatusConflict
	}
	write(w, status, api.Error{Error: err.Error()})
}

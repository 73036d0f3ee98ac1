package service

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// handleLogs sends what the guest has printed; with follow, also what it will print.
func (s *server) handleLogs(w http.ResponseWriter, r *http.Request) {
	query, follow, lines := r.URL.Query(), false, AllLines
	switch query.Get("follow") {
	case "true":
		follow = true
	case "", "false":
	default:
		fail(w, badRequest{errors.New("follow must be true or false")})
		return
	}
	if query.Has("tail") {
		n, err := strconv.ParseUint(query.Get("tail"), 10, 31)
		if err != nil {
			fail(w, badRequest{errors.New("tail must be a number of lines")})
			return
		}
		lines = int(n)
	}
	output, err := s.out.watch(lines)
	if err != nil {
		fail(w, err)
		return
	}
	defer output.Close()
	if !follow {
		output.end()
	}
	defer s.o.Owner.ContextFunc(r.Context(), output.end)()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	copyFlushing(w, output)
}

// copyFlushing sends what it reads to the client at once.
func copyFlushing(w http.ResponseWriter, r io.Reader) error {
	flush := http.NewResponseController(w)
	b := make([]byte, 32<<10)
	for {
		n, err := r.Read(b)
		if n > 0 {
			if _, err := w.Write(b[:n]); err != nil {
				return err
			}
			flush.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// handleConsole connects the client to the console, in both directions.
func (s *server) handleConsole(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "console") {
		fail(w, badRequest{errors.New("it needs the headers Connection: Upgrade and Upgrade: console")})
		return
	}
	output, err := s.out.watch(0)
	if err != nil {
		fail(w, err)
		return
	}
	defer output.Close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: console\r\n\r\n")
	ctx, gone := context.WithCancel(context.Background())
	defer gone()
	defer s.o.Owner.ContextFunc(ctx, s.in.wake)()
	ended := make(chan struct{})
	s.o.Owner.Go(func() {
		defer close(ended)
		s.typed(ctx, buffered)
		if c, ok := conn.(*net.UnixConn); ok {
			c.CloseRead()
		}
	})
	// A client that has closed its sending half may still read. It is gone when a write
	// fails or, at the latest, when the guest ends. What it typed before still counts.
	io.Copy(conn, output)
	last := s.o.Owner.AfterFunc(lastTyped, func() {
		gone()
		conn.Close()
	})
	<-ended
	last.Stop()
}

// lastTyped is how long a guest may take to accept a departed client's last input.
const lastTyped = time.Second

// typed passes on what a client types until there is no more.
func (s *server) typed(ctx context.Context, r io.Reader) {
	b := make([]byte, inboxSize)
	for {
		n, err := r.Read(b)
		if n > 0 && !s.in.put(ctx, b[:n]) {
			return
		}
		if err != nil {
			return
		}
	}
}

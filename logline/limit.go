package logline

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// What Limit lets through: at most limitLines lines of one message in limitWindow.
const (
	limitLines  = 20
	limitWindow = 10 * time.Second
	maxMessages = 256 // that are told apart
)

// Limit returns a handler that passes on to h at most 20 lines of one message, at any
// level, in 10 s. The next line says how many were left out ("more"). So no guest,
// network or client can fill a log. A handler that is limited already is not limited
// twice.
func Limit(h slog.Handler) slog.Handler {
	if l, ok := h.(*limited); ok {
		return l
	}
	return &limited{h, &messages{by: map[string]*message{}, now: time.Now}}
}

type limited struct {
	slog.Handler
	*messages // shared by all handlers that With makes
}

// messages are the recently logged messages.
type messages struct {
	now func() time.Time

	mu sync.Mutex
	by map[string]*message // guarded by mu
}

// message counts the lines of one text in its window.
type message struct {
	began  time.Time
	lines  int
	missed int
}

// Handle implements slog.Handler.
func (l *limited) Handle(ctx context.Context, r slog.Record) error {
	more, ok := l.admit(r.Message)
	if !ok {
		return nil
	}
	if more > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("more", more))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limited{l.Handler.WithAttrs(attrs), l.messages}
}

// WithGroup implements slog.Handler.
func (l *limited) WithGroup(name string) slog.Handler {
	return &limited{l.Handler.WithGroup(name), l.messages}
}

// admit reports whether a line may be written, and how many like it were left out.
func (s *messages) admit(text string) (more int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.by[text]
	if m == nil {
		if len(s.by) >= maxMessages { // the texts come from outside
			text = ""
			m = s.by[text]
		}
		if m == nil {
			m = &message{}
			s.by[text] = m
		}
	}
	if now := s.now(); now.Sub(m.began) >= limitWindow {
		more, m.began, m.lines, m.missed = m.missed, now, 0, 0
	}
	if m.lines == limitLines {
		m.missed++
		return 0, false
	}
	m.lines++
	return more, true
}

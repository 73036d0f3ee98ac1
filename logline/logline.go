// Package logline limits log lines that others can cause at any rate: a guest, a
// program, a network.
package logline

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// A Line is one kind of log line, written at most once in a given time. It says how
// often it was left out since the last one ("more"). Its methods may be called from any
// goroutine; they take no lock.
type Line struct {
	log    *slog.Logger
	every  time.Duration
	now    func() time.Time
	next   atomic.Int64 // when the next may be written, Unix time in ns
	missed atomic.Uint64
}

// New returns a line that is written at most once in every. With a nil log it is
// discarded.
func New(log *slog.Logger, every time.Duration) *Line {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Line{log: log, every: every, now: time.Now}
}

// Debug, Warn and Error are like slog's.
func (l *Line) Debug(msg string, args ...any) { l.write(slog.LevelDebug, msg, args) }
func (l *Line) Warn(msg string, args ...any)  { l.write(slog.LevelWarn, msg, args) }
func (l *Line) Error(msg string, args ...any) { l.write(slog.LevelError, msg, args) }

func (l *Line) write(level slog.Level, msg string, args []any) {
	now, next := l.now().UnixNano(), l.next.Load()
	if now < next || !l.next.CompareAndSwap(next, now+int64(l.every)) {
		l.missed.Add(1)
		return
	}
	if n := l.missed.Swap(0); n > 0 {
		args = append(args[:len(args):len(args)], "more", n)
	}
	l.log.Log(context.Background(), level, msg, args...)
}

package logline

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestLine: the first line is written, then one per interval, with the number missed.
func TestLine(t *testing.T) {
	var b bytes.Buffer
	l := New(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelWarn})), time.Minute)
	now := time.Unix(1000, 0)
	l.now = func() time.Time { return now }
	for _, step := range []struct {
		after time.Duration
		do    func(string, ...any)
		want  string // end of the line, "" for none
	}{
		{0, l.Warn, `level=WARN msg=fails err=no`},
		{0, l.Warn, ""},
		{time.Minute - 1, l.Error, ""},
		{1, l.Error, `level=ERROR msg=fails err=no more=2`},
		{time.Hour, l.Debug, ""}, // below this log's level
		{time.Hour, l.Warn, `level=WARN msg=fails err=no`},
	} {
		now = now.Add(step.after)
		b.Reset()
		step.do("fails", "err", "no")
		if got := strings.TrimSpace(b.String()); (got == "") != (step.want == "") || !strings.HasSuffix(got, step.want) {
			t.Errorf("after %v: %q, want %q", step.after, got, step.want)
		}
	}
	New(nil, time.Minute).Warn("discarded")
}

// TestMany: of many simultaneous lines, one is written.
func TestMany(t *testing.T) {
	var b bytes.Buffer
	l := New(slog.New(slog.NewTextHandler(&b, nil)), time.Hour)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				l.Warn("fails")
			}
		})
	}
	all.Wait()
	if n := strings.Count(b.String(), "\n"); n != 1 || l.missed.Load() != 799 {
		t.Errorf("%d lines, %d missed", n, l.missed.Load())
	}
}

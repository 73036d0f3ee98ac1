package logline

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestLimit: a message is written a limited number of times per window, also through
// derived loggers. Other messages are not affected. The next window's first line has the
// number left out.
func TestLimit(t *testing.T) {
	var b bytes.Buffer
	h := Limit(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})).(*limited)
	now := time.Now()
	h.now = func() time.Time { return now }
	log := slog.New(h)
	lines := func() int {
		defer b.Reset()
		return strings.Count(b.String(), "\n")
	}
	for i := range 1000 {
		log.Debug("one", "i", i)
		log.With("guest", i).WithGroup("g").Error("one")
	}
	log.Info("another")
	if n := lines(); n != limitLines+1 {
		t.Errorf("%d lines, want %d", n, limitLines+1)
	}
	now = now.Add(limitWindow)
	log.Warn("one")
	if got := b.String(); !strings.Contains(got, "msg=one more=1980") {
		t.Errorf("later: %s", got)
	}
	b.Reset()
	for i := range 10 * maxMessages {
		log.Info(fmt.Sprint("made up ", i))
	}
	if n := lines(); n > maxMessages+limitLines || len(h.by) > maxMessages+1 {
		t.Errorf("%d lines, %d messages are kept", n, len(h.by))
	}
	if Limit(h) != slog.Handler(h) {
		t.Error("limited twice")
	}
}

package virtio

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestLogBounded: a driver that breaks the device over and over causes one log line.
func TestLogBounded(t *testing.T) {
	var log bytes.Buffer
	c, err := newCore(null{}, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.closeKicks()
	interrupts := 0
	c.notify = func(int) { interrupts++ }
	for range 1000 {
		c.fail("queue 0", errors.New("a loop"))
		c.fail("queue 0", errors.New("a loop")) // latched
		c.mu.Lock()
		c.clear()
		c.mu.Unlock()
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 || interrupts != 1000 {
		t.Errorf("%d lines, %d interrupts; want 1 and 1000:\n%.300s", lines, interrupts, log.String())
	}
}

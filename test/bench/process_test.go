package main

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"vmm/test/allow"
)

func shell(t *testing.T, script string) *process {
	t.Helper()
	p, err := launch([]string{"/bin/sh", "-c", script})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// TestExpect: the line may come in pieces, on either stream, and the process does not
// see end of file on its input.
func TestExpect(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	p := shell(t, `printf 'noise\nvmm-init: up 1'; printf '.25\r\n' >&2; cat`)
	groups, at, err := p.expect(ctx, up)
	if err != nil || groups[1] != "1.25" || at.Before(p.began) {
		t.Errorf("%q at %v, %v", groups, at, err)
	}
}

func TestExpectFails(t *testing.T) {
	p := shell(t, "echo Kernel panic; exit 3")
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	if _, _, err := p.expect(ctx, up); err == nil || !strings.Contains(err.Error(), "ended") || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("of a process that ends: %v", err)
	}
	p = shell(t, "cat")
	ctx, cancel = context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errPatience)
	defer cancel()
	if _, _, err := p.expect(ctx, regexp.MustCompile("never")); err == nil || !strings.Contains(err.Error(), "stalled") {
		t.Errorf("of one that stalls: %v", err)
	}
}

func TestPrompt(t *testing.T) {
	for text, want := range map[string]bool{
		"vmm-init: up 1.00\r\nwelcome\r\n$ ": true,
		"cost: $ \r\nvmm-init: up 1.00\r\n":  false, // the dollar is not a prompt yet
		"vmm-init: up 1.00\r\n":              false,
	} {
		if prompt.MatchString(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

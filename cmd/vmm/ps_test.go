package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmm/api"
	"vmm/roster"
)

// twenty makes a runtime directory with as many guests that live.
func twenty(tb testing.TB, kernel string) (dir string) {
	tb.Helper()
	dir = filepath.Join(tb.TempDir(), "r")
	r, err := roster.Create(dir)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range 20 {
		c, err := r.Claim(fmt.Sprintf("guest-%02d", i), false)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { c.Release() }) // and the name is not given up before, with the Claim
		now := time.Now()
		b, err := json.Marshal(api.Guest{Name: c.Name, State: api.Running, Pid: os.Getpid(), Created: now, Started: &now,
			Config: map[string]any{"Kernel": kernel, "CPUs": 2, "Memory": 512 << 20}})
		if err != nil {
			tb.Fatal(err)
		}
		if err := c.SetRecord(b); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// TestPSEscapes: nothing that others name, or that a damaged record says, reaches
// the terminal as a command or breaks a line.
func TestPSEscapes(t *testing.T) {
	dir := twenty(t, "evil\x1b[2J\nkernel")
	if err := os.WriteFile(filepath.Join(dir, "guest-07", "guest.json"), []byte(`{"name":"x\u001b[31m","state":"\u001b[0m\n","config":{"CPUs":"\u0007"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"table", "json"} {
		var out, stderr bytes.Buffer
		p := &program{out: &out, err: &stderr}
		if status := p.execute([]string{"ps", "-a", "--runtime-dir", dir, "--format", format}); status != 0 {
			t.Fatalf("%d: %s", status, &stderr)
		}
		want := 20
		if format == "table" {
			want++ // the heading
		}
		text := out.String()
		if n := strings.Count(text, "\n"); n != want || strings.ContainsAny(text, "\x1b\x07") {
			t.Errorf("%s: %d lines, not %d: %q", format, n, want, text)
		}
		for line := range strings.Lines(text) {
			if format == "json" && !json.Valid([]byte(line)) {
				t.Errorf("no JSON: %q", line)
			}
		}
	}
}

// BenchmarkPS is `vmm ps` as a user waits for it, with 20 guests.
func BenchmarkPS(b *testing.B) {
	dir, binary := twenty(b, "bzImage"), filepath.Join(b.TempDir(), "vmm")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for b.Loop() {
		out, err := exec.Command(binary, "ps", "--runtime-dir", dir).CombinedOutput()
		if err != nil || bytes.Count(out, []byte("\n")) != 21 {
			b.Fatalf("%v: %s", err, out)
		}
	}
}

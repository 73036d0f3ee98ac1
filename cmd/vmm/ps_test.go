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
	"unicode"

	"vmm/api"
	"vmm/roster"
)

// twenty makes a runtime directory with 20 live guests.
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
		tb.Cleanup(func() { c.Release() }) // and keeps the Claim, and so the name, until then
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

// hostile has a control character of each kind that JSON may leave as it is or a terminal
// may obey: C0, DEL, C1 (CSI), one that reverses text, and one beyond 16 bits.
const hostile = "evil\x1b[2J\n\x7f\u009b31m\u202e\U000e0041kernel"

// heeded says whether a terminal may take part of text for a command.
func heeded(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
}

// TestInspectEscapes: inspect prints the same JSON, in which no terminal finds a command.
func TestInspectEscapes(t *testing.T) {
	dir := twenty(t, hostile)
	var out, stderr bytes.Buffer
	p := &program{out: &out, err: &stderr}
	if status := p.execute([]string{"inspect", "--runtime-dir", dir, "guest-03"}); status != 0 {
		t.Fatalf("%d: %s", status, &stderr)
	}
	var guests []api.Guest
	if err := json.Unmarshal(out.Bytes(), &guests); err != nil || len(guests) != 1 || guests[0].Config["Kernel"] != hostile {
		t.Errorf("%v: %+v", err, guests)
	}
	if heeded(out.String()) {
		t.Errorf("%q", &out)
	}
}

// TestPSEscapes: no name chosen by others, and nothing in a damaged record, reaches the
// terminal as a command or breaks a line.
func TestPSEscapes(t *testing.T) {
	dir := twenty(t, hostile)
	if err := os.WriteFile(filepath.Join(dir, "guest-07", "guest.json"), []byte(`{"name":"x\u001b[31m\u009b","state":"\u001b[0m\n","config":{"CPUs":"\u0007"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"table", "json", "quiet"} {
		var out, stderr bytes.Buffer
		p := &program{out: &out, err: &stderr}
		args := []string{"ps", "-a", "--runtime-dir", dir, "--format", format}
		if format == "quiet" {
			args = []string{"ps", "-aq", "--runtime-dir", dir}
		}
		if status := p.execute(args); status != 0 {
			t.Fatalf("%d: %s", status, &stderr)
		}
		want := 20
		if format == "table" {
			want++ // the heading
		}
		text := out.String()
		if n := strings.Count(text, "\n"); n != want || heeded(text) {
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

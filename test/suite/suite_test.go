package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"vmm/test/allow"
)

func TestRun(t *testing.T) {
	for _, test := range []struct {
		name, script string
		limit        time.Duration
		good         bool
		want         string
	}{
		{"good", "echo one; echo two >&2", time.Minute, true, `^=== good: at most 60 s\none\ntwo\n=== good: ok, [0-9]+ s\n$`},
		{"bad", "exit 3", time.Minute, false, `\n=== bad: FAILED after [0-9]+ s: exit status 3\n$`},
		{"late", "trap 'echo where I am; exit 1' QUIT; while :; do sleep 0.01; done", allow.Time(2 * time.Second), false, // time for it to set its trap
			`\nwhere I am\n=== late: FAILED, not done after [0-9]+ s\n$`},
		{"none", "exec /nowhere", time.Minute, false, `FAILED after`},
		{"slow", "echo 'ok  \tvmm/a\t7.2s'; echo 'ok  \tvmm/b\t0.2s'; echo '--- PASS: TestX (61.02s)'; printf 'lab: ok      12.5 s  Y+4'", time.Minute, true,
			`\n=== slow: ok, [0-9]+ s; slowest: TestX 61 s, Y\+4 12 s, vmm/a 7 s\n$`},
	} {
		var out bytes.Buffer
		if good := run(&out, test.name, test.limit, []string{"sh", "-c", test.script}); good != test.good || !regexp.MustCompile(test.want).Match(out.Bytes()) {
			t.Errorf("%s: %v, %q", test.name, good, out.String())
		}
	}
}

// TestRunLeft: processes that a command leaves running end with it, and run does not wait
// for their output.
func TestRunLeft(t *testing.T) {
	var out bytes.Buffer
	began := time.Now()
	if !run(&out, "left", time.Minute, []string{"sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo done"}) || time.Since(began) > 30*time.Second {
		t.Errorf("after %v: %s", time.Since(began), out.String())
	}
}

func TestLongLine(t *testing.T) {
	var out bytes.Buffer
	s := &slowest{out: &out}
	s.Write([]byte(strings.Repeat("x", 4*longestLine)))
	s.Write([]byte("\n--- PASS: TestX (9.00s)\n"))
	if len(s.entries) != 1 || cap(s.line) > 2*longestLine || out.Len() < 4*longestLine {
		t.Errorf("%v, %d", s.entries, cap(s.line))
	}
}

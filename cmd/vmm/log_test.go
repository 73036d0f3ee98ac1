package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestLogFormat: one record in each format.
func TestLogFormat(t *testing.T) {
	log := func(format logFormat, f func(*slog.Logger)) string {
		var b bytes.Buffer
		f(slog.New(newLogTarget(&b, format, slog.LevelDebug)).With("guest", "web"))
		return b.String()
	}
	for _, test := range []struct {
		name string
		do   func(*slog.Logger)
		want string // in plain format
	}{
		{"warning", func(l *slog.Logger) { l.Warn("no room") }, "vmm: warning: no room\n"},
		{"cause", func(l *slog.Logger) { l.Warn("no room", "path", "/k", "err", errors.New("disk full")) }, "vmm: warning: no room: disk full (path /k)\n"},
		{"error", func(l *slog.Logger) { l.Error("interrupt", "gsi", 4, "n", 2) }, "vmm: interrupt (gsi 4, n 2)\n"},
		{"info", func(l *slog.Logger) { l.Info("kernel loaded", "release", "", "mode", "direct") }, "vmm: kernel loaded (mode direct)\n"},
		{"debug", func(l *slog.Logger) { l.Debug("x") }, "vmm: debug: x\n"},
		{"with", func(l *slog.Logger) {
			a := l.With("a", 1)
			a.With("b", 2).Info("x")
			a.With("c", 3).Info("y", "d", 4)
		}, "vmm: x (a 1, b 2)\nvmm: y (a 1, c 3, d 4)\n"},
		{"group", func(l *slog.Logger) { l.WithGroup("disk").Info("x", "err", "no", "guest", 1) }, "vmm: x (disk.err no, disk.guest 1)\n"},
		{"hostile", func(l *slog.Logger) { l.Warn("a\x1bb", "path", hostile) }, "vmm: warning: a\\x1bb (path evil\\x1b[2J\\n\\x7f\\u009b31m\\u202e\\U000e0041kernel)\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := log(logPlain, test.do); got != test.want {
				t.Errorf("plain: %q", got)
			}
			if got := log(logText, test.do); heeded(got) || !strings.HasPrefix(got, "time=") || !strings.Contains(got, " guest=web") {
				t.Errorf("text: %q", got)
			}
			got := log(logJSON, test.do)
			var record map[string]any
			if err := json.Unmarshal([]byte(strings.SplitAfter(got, "\n")[0]), &record); err != nil || heeded(got) || record["guest"] != "web" {
				t.Errorf("json: %q, %v", got, err)
			}
			if test.name == "hostile" && record["path"] != hostile {
				t.Errorf("json has another path: %q", record["path"])
			}
		})
	}
}

// TestLogTarget: derived handlers follow their target, and the level holds.
func TestLogTarget(t *testing.T) {
	var first, second bytes.Buffer
	target := newLogTarget(&first, logPlain, slog.LevelWarn)
	log := slog.New(target).With("guest", "web")
	log.Info("not this")
	log.Warn("one")
	target.set(&second, logJSON)
	log.Warn("two")
	if got := first.String(); got != "vmm: warning: one\n" {
		t.Errorf("%q", got)
	}
	if got := second.String(); !strings.Contains(got, `"msg":"two","guest":"web"`) {
		t.Errorf("%q", got)
	}
}

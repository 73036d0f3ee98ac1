package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// logFormat is the flag --log-format.
type logFormat string

const (
	logAuto  logFormat = "auto"  // plain at a terminal, else text
	logPlain logFormat = "plain" // a line for a person
	logText  logFormat = "text"  // key=value, as slog.TextHandler writes them
	logJSON  logFormat = "json"  // an object per line
)

var logFormats = []string{string(logAuto), string(logPlain), string(logText), string(logJSON)}

// Set implements pflag.Value.
func (f *logFormat) Set(s string) error {
	switch *f = logFormat(s); *f {
	case logAuto, logPlain, logText, logJSON:
		return nil
	}
	return errors.New("must be auto, plain, text or json")
}

// String implements pflag.Value.
func (f *logFormat) String() string { return string(*f) }

// Type implements pflag.Value.
func (*logFormat) Type() string { return "format" }

// at returns the format for standard error. In the background standard error is a pipe to
// the parent, so the parent's choice counts.
func (f logFormat) at(stderr io.Writer) logFormat {
	if f != logAuto {
		return f
	}
	if parents := logFormat(os.Getenv(detachedVariable)); parents == logPlain || parents == logText {
		return parents
	}
	if file, ok := stderr.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return logPlain
	}
	return f.inFile()
}

func (f logFormat) inFile() logFormat {
	if f == logAuto {
		return logText
	}
	return f
}

// logTarget is where log lines go and in which format; both may change. It implements
// slog.Handler.
type logTarget struct {
	*logState
	plain, text, json slog.Handler
}

type logState struct {
	mu     sync.Mutex
	w      io.Writer // guarded by mu
	format logFormat // guarded by mu; not auto
}

func newLogTarget(w io.Writer, format logFormat, level slog.Level) *logTarget {
	s := &logState{w: w, format: format}
	options := &slog.HandlerOptions{Level: level}
	return &logTarget{
		logState: s,
		plain:    &plainHandler{w: s},
		text:     slog.NewTextHandler(escaping{s, oneLine}, options),
		json:     slog.NewJSONHandler(escaping{s, oneLineJSON}, options),
	}
}

// set makes future lines go to w.
func (t *logTarget) set(w io.Writer, format logFormat) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.w, t.format = w, format
}

// Write implements io.Writer, for the handlers.
func (s *logState) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

func (t *logTarget) handler() slog.Handler {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.format {
	case logPlain:
		return t.plain
	case logJSON:
		return t.json
	}
	return t.text
}

// Enabled implements slog.Handler.
func (t *logTarget) Enabled(ctx context.Context, l slog.Level) bool { return t.text.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (t *logTarget) Handle(ctx context.Context, r slog.Record) error {
	return t.handler().Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (t *logTarget) WithAttrs(a []slog.Attr) slog.Handler {
	return &logTarget{t.logState, t.plain.WithAttrs(a), t.text.WithAttrs(a), t.json.WithAttrs(a)}
}

// WithGroup implements slog.Handler.
func (t *logTarget) WithGroup(name string) slog.Handler {
	return &logTarget{t.logState, t.plain.WithGroup(name), t.text.WithGroup(name), t.json.WithGroup(name)}
}

// plainHandler writes a record as the command writes an error:
//
//	vmm: warning: the kernel will unpack itself: no room (path /k)
//
// It leaves out which guest a record is about: the terminal has only one.
type plainHandler struct {
	w      io.Writer
	group  string // with a dot at the end
	why    string // of the attributes err and why
	others []string
}

// Enabled implements slog.Handler.
func (*plainHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h *plainHandler) Handle(_ context.Context, r slog.Record) error {
	all := *h
	r.Attrs(func(a slog.Attr) bool {
		all.add(a)
		return true
	})
	text := "vmm: "
	switch {
	case r.Level < slog.LevelInfo:
		text += "debug: "
	case r.Level >= slog.LevelError:
	case r.Level >= slog.LevelWarn:
		text += "warning: "
	}
	text += r.Message + all.why
	if len(all.others) > 0 {
		text += " (" + strings.Join(all.others, ", ") + ")"
	}
	_, err := io.WriteString(h.w, oneLine(text)+"\n")
	return err
}

func (h *plainHandler) add(a slog.Attr) {
	v := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}) || h.group == "" && a.Key == "guest":
	case h.group == "" && (a.Key == "err" || a.Key == "why"):
		h.why += fmt.Sprintf(": %v", v)
	case v.String() == "": // tells a person nothing
	default:
		h.others = append(h.others[:len(h.others):len(h.others)], fmt.Sprintf("%s%s %v", h.group, a.Key, v))
	}
}

// WithAttrs implements slog.Handler.
func (h *plainHandler) WithAttrs(list []slog.Attr) slog.Handler {
	more := *h
	for _, a := range list {
		more.add(a)
	}
	return &more
}

// WithGroup implements slog.Handler.
func (h *plainHandler) WithGroup(name string) slog.Handler {
	more := *h
	more.group += name + "."
	return &more
}

// escaping writes lines, escaped by escape. Each Write is a whole line with its newline.
type escaping struct {
	w      io.Writer
	escape func(string) string
}

// Write implements io.Writer.
func (e escaping) Write(p []byte) (int, error) {
	line, end := strings.CutSuffix(string(p), "\n")
	if line = e.escape(line); end {
		line += "\n"
	}
	if _, err := io.WriteString(e.w, line); err != nil {
		return 0, err
	}
	return len(p), nil
}

package service

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
)

// LogSize is how much of a guest's output is kept at least, once there was as
// much; twice that is the most.
const LogSize = 1 << 20

// logFile keeps the last bytes of what is written to it, in two files: the second
// is what was in the first when that was full.
type logFile struct {
	path string
	max  int64
	f    *os.File
	n    int64 // bytes in f
}

// older is the name of the second file.
func older(path string) string { return path + ".1" }

// openLog continues the log of a guest that was there before, or begins one.
func openLog(path string, max int64) (*logFile, error) {
	l := &logFile{path: path, max: max}
	var err error
	if l.f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	info, err := l.f.Stat()
	if err != nil {
		l.f.Close()
		return nil, err
	}
	l.n = info.Size()
	return l, nil
}

// Write appends p, of which a part may go into one file and a part into the next.
func (l *logFile) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if l.n >= l.max {
			if err := l.turn(); err != nil {
				return n, err
			}
		}
		m, err := l.f.Write(p[:min(int64(len(p)), l.max-l.n)])
		n, l.n, p = n+m, l.n+int64(m), p[m:]
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// turn makes the file the older one, and begins another.
func (l *logFile) turn() error {
	next := l.path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Rename(l.path, older(l.path)), os.Rename(next, l.path)); err != nil {
		f.Close()
		return err
	}
	l.f.Close()
	l.f, l.n = f, 0
	return nil
}

func (l *logFile) Close() error { return l.f.Close() }

// AllLines is all that a log has.
const AllLines = -1

// ReadLog returns the last lines that a guest's log has, or AllLines. The caller
// closes it. No output at all is an empty log. What is written, or dropped, from
// then on changes nothing.
func ReadLog(path string, lines int) (io.ReadCloser, error) {
	whole, err := wholeLog(path)
	if err != nil || lines < 0 {
		return whole, err
	}
	defer whole.Close()
	b, err := io.ReadAll(whole) // a log is bounded
	return io.NopCloser(bytes.NewReader(lastLines(b, lines))), err
}

// lastLines returns the end of b that has n lines. What follows the last newline
// is a line, too.
func lastLines(b []byte, n int) []byte {
	end := len(bytes.TrimSuffix(b, []byte("\n")))
	for from := end; ; n-- {
		if n <= 0 {
			return b[min(from+1, len(b)):]
		}
		if from = bytes.LastIndexByte(b[:from], '\n'); from < 0 {
			return b
		}
	}
}

func wholeLog(path string) (io.ReadCloser, error) {
	var r logReader
	var parts []io.Reader
	for _, name := range []string{older(path), path} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			r.Close()
			return nil, err
		}
		r.files = append(r.files, f)
		info, err := f.Stat()
		if err != nil {
			r.Close()
			return nil, err
		}
		parts = append(parts, io.LimitReader(f, info.Size()))
	}
	r.Reader = io.MultiReader(parts...)
	return &r, nil
}

type logReader struct {
	io.Reader
	files []*os.File
}

func (r *logReader) Close() error {
	var errs []error
	for _, f := range r.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

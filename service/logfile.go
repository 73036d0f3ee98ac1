package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// LogSize is how much of a guest's output is kept at least, once there was as
// much; twice that is the most.
const LogSize = 1 << 20

// logFile keeps the last bytes of what is written to it, in two files: the second
// is what was in the first when that was full. They are made, and never opened:
// whatever has been put in their place is not written to.
type logFile struct {
	root *os.Root // the guest's folder
	name string
	max  int64
	f    *os.File
	n    int64 // bytes in f
	lost int64 // bytes that could not be written, behind those; of which the next write tells
}

// older is the name of the second file.
func older(name string) string { return name + ".1" }

// openLog begins a log.
func openLog(root *os.Root, name string, max int64) (*logFile, error) {
	f, err := create(root, name)
	if err != nil {
		return nil, err
	}
	return &logFile{root: root, name: name, max: max, f: f}, nil
}

// create makes a file that is not there yet, whatever kind of file that were.
func create(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
}

// Write appends p. What a host does not take whose disk is full is lost; once it has
// room again the log says how much that was, and goes on.
func (l *logFile) Write(p []byte) (n int, err error) {
	if err = l.tell(); err == nil {
		n, err = l.append(p)
	}
	l.lost += int64(len(p) - n)
	return n, err
}

// missing stands in output for n bytes of it.
func missing(n int64) []byte {
	return fmt.Appendf(nil, "\r\n[vmm: %d bytes of output are missing here]\r\n", n)
}

// tell writes how much was lost, if something was: whole, or not at all.
func (l *logFile) tell() error {
	if l.lost == 0 {
		return nil
	}
	text := missing(l.lost)
	if l.n+int64(len(text)) > l.max {
		if err := l.turn(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(text)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, l.f.Truncate(l.n))
		}
		return err
	}
	l.n, l.lost = l.n+int64(n), 0
	return nil
}

// append writes p, of which a part may go into one file and a part into the next.
func (l *logFile) append(p []byte) (n int, err error) {
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
	next := l.name + ".new"
	if err := l.root.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a turn that failed
		return err
	}
	f, err := create(l.root, next)
	if err != nil {
		return err
	}
	if err := l.root.Rename(l.name, older(l.name)); err != nil && !errors.Is(err, fs.ErrNotExist) { // nor if that failed between the two
		f.Close()
		return err
	}
	if err := l.root.Rename(next, l.name); err != nil {
		f.Close()
		return err
	}
	l.f.Close()
	l.f, l.n = f, 0
	return nil
}

// Close says what was lost at the end, if it can.
func (l *logFile) Close() error {
	l.tell()
	return l.f.Close()
}

// AllLines is all that a log has.
const AllLines = -1

// ReadLog returns the last lines that a guest's log has, or AllLines; open opens a
// file of the guest's folder. The caller closes it. No output at all is an empty
// log. What is written, or dropped, from then on changes nothing.
func ReadLog(open func(name string) (*os.File, error), lines int) (io.ReadCloser, error) {
	return readLog(open, ConsoleLog, lines)
}

func readLog(open func(string) (*os.File, error), name string, lines int) (io.ReadCloser, error) {
	whole, err := wholeLog(open, name)
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

func wholeLog(open func(string) (*os.File, error), name string) (io.ReadCloser, error) {
	var r logReader
	var parts []io.Reader
	for _, name := range []string{older(name), name} {
		f, err := open(name)
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

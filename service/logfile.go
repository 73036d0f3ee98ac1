package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// LogSize is the least that is kept of a guest's output, once there is that much. The
// most is twice that.
const LogSize = 1 << 20

// logFile keeps the last bytes written to it, in two files. When the first is full, it
// becomes the second. Both are always created, never opened: a file that another
// process has put in their place is not written to.
type logFile struct {
	root *os.Root // the guest's folder
	name string
	max  int64
	f    *os.File
	n    int64 // bytes in f
	lost int64 // bytes that could not be written after those; the next write reports them
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

// create makes a new file. It fails if the name exists, whatever its file type.
func create(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
}

// Write appends p. Bytes that do not fit on a full disk are lost; once there is room
// again the log says how many there were, and continues.
func (l *logFile) Write(p []byte) (n int, err error) {
	if err = l.tell(); err == nil {
		n, err = l.append(p)
	}
	l.lost += int64(len(p) - n)
	return n, err
}

// missing is the text that replaces n bytes of output.
func missing(n int64) []byte {
	return fmt.Appendf(nil, "\r\n[vmm: %d bytes of output are missing here]\r\n", n)
}

// tell writes how many bytes were lost, if any: the whole text or none of it.
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

// append writes p. Part of p may go into one file and part into the next.
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

// turn makes the current file the older one, and begins another.
func (l *logFile) turn() error {
	next := l.name + ".new"
	if err := l.root.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a turn that failed
		return err
	}
	f, err := create(l.root, next)
	if err != nil {
		return err
	}
	if err := l.root.Rename(l.name, older(l.name)); err != nil && !errors.Is(err, fs.ErrNotExist) { // missing if a turn failed between the two renames
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

// Close writes what was lost at the end, if it can.
func (l *logFile) Close() error {
	l.tell()
	return l.f.Close()
}

// AllLines stands for all lines of a log.
const AllLines = -1

// ReadLog returns the last lines of a guest's log; lines may be AllLines. open opens a
// file in the guest's folder. The caller closes the result. A log without output is
// empty. Later writes and drops do not change the result.
func ReadLog(open func(name string) (*os.File, error), lines int) (io.ReadCloser, error) {
	return readLog(open, ConsoleLog, lines)
}

func readLog(open func(string) (*os.File, error), name string, lines int) (io.ReadCloser, error) {
	whole, err := wholeLog(open, name)
	if err != nil || lines < 0 {
		return whole, err
	}
	defer whole.Close()
	b, err := io.ReadAll(whole) // the size of a log is bounded
	return io.NopCloser(bytes.NewReader(lastLines(b, lines))), err
}

// lastLines returns the last n lines of b. Text after the last newline counts as a
// line, too.
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

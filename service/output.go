package service

import (
	"io"
	"sync"
	"time"
)

// output is where the guest's console output goes: to its log, to all watchers, and to
// the console that vmm was started on, if any. Only that console makes the guest wait
// when it does not read.
type output struct {
	console io.Writer // nil if there is none

	mu       sync.Mutex
	log      *logFile              // guarded by mu; nil: no log is kept
	watchers map[*watcher]struct{} // guarded by mu; nil once closed
	outages  outages               // guarded by mu; of the log
}

func newOutput(console io.Writer, log *logFile, tell func(err error, lost int64)) *output {
	return &output{console: console, log: log, outages: outages{tell: tell}, watchers: map[*watcher]struct{}{}}
}

// outages reports when a log cannot be written, and when it can be written again. It
// reports at most once every sayAgain, because a guest can fill the disk by printing.
type outages struct {
	tell func(err error, lost int64) // err is nil when the log can be written again
	said time.Time                   // when the last reported outage ended
	told bool                        // the current outage was reported
	lost int64                       // bytes lost in outages that were not reported
}

const sayAgain = time.Minute

// see examines the result of a write. lost bytes could not be written before it.
func (o *outages) see(err error, lost int64) {
	switch began, over := err != nil && lost == 0, err == nil && lost > 0; {
	case began && (o.said.IsZero() || time.Since(o.said) >= sayAgain):
		o.told = true
		o.tell(err, 0)
	case over && o.told:
		o.tell(nil, o.lost+lost)
		o.said, o.told, o.lost = time.Now(), false, 0
	case over:
		o.lost += lost
	}
}

// Write implements io.Writer. It fails only if the console does.
func (o *output) Write(p []byte) (int, error) {
	o.share(p)
	if o.console == nil {
		return len(p), nil
	}
	return o.console.Write(p)
}

func (o *output) share(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.log != nil {
		lost := o.log.lost
		_, err := o.log.Write(p)
		o.outages.see(err, lost)
	}
	for w := range o.watchers {
		w.add(p)
	}
}

// watch returns a watcher of all output from now on, preceded by the last lines in the
// log; lines may be AllLines.
func (o *output) watch(lines int) (*watcher, error) {
	w := &watcher{output: o}
	w.changed.L = &w.mu
	o.mu.Lock()
	defer o.mu.Unlock()
	if lines != 0 && o.log != nil {
		var err error
		if w.past, err = readLog(o.log.root.Open, o.log.name, lines); err != nil {
			return nil, err
		}
	}
	if o.watchers == nil {
		w.closed = true
	} else {
		o.watchers[w] = struct{}{}
	}
	return w, nil
}

// Close ends all watchers, once they have read everything.
func (o *output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for w := range o.watchers {
		w.end()
	}
	o.watchers = nil
	if o.log == nil {
		return nil
	}
	return o.log.Close()
}

// watcherSize bounds what is kept for a watcher that does not read.
const watcherSize = 256 << 10

// watcher reads the guest's output. It implements io.ReadCloser, for one reader.
type watcher struct {
	output *output
	past   io.ReadCloser // nil once read

	mu      sync.Mutex
	changed sync.Cond // of everything below
	data    []byte    // guarded by mu
	missed  int       // guarded by mu; bytes after data for which there was no room
	closed  bool      // guarded by mu
}

// add appends as much as there is room for. A watcher that has missed something gets
// no more until it has read what it has.
func (w *watcher) add(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	room := watcherSize - len(w.data)
	if w.missed > 0 {
		room = 0
	}
	n := min(room, len(p))
	w.data = append(w.data, p[:n]...)
	w.missed += len(p) - n
	w.changed.Broadcast()
}

func (w *watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.changed.Broadcast()
}

// Read returns io.EOF after Close, or after the guest's final end.
func (w *watcher) Read(p []byte) (int, error) {
	if w.past != nil {
		n, err := w.past.Read(p)
		if n > 0 {
			return n, nil
		}
		w.past.Close()
		w.past = nil
		if err != nil && err != io.EOF {
			return 0, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.data) == 0 && w.missed == 0 && !w.closed {
		w.changed.Wait()
	}
	if len(w.data) == 0 && w.missed > 0 {
		w.data = missing(int64(w.missed))
		w.missed = 0
	}
	if len(w.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, w.data)
	w.data = w.data[:copy(w.data, w.data[n:])]
	return n, nil
}

// Close ends the watcher; a waiting Read returns.
func (w *watcher) Close() error {
	w.output.mu.Lock()
	delete(w.output.watchers, w)
	w.output.mu.Unlock()
	w.end()
	return nil
}

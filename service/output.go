package service

import (
	"io"
	"sync"
	"time"
)

// output is where the guest's console goes: to its log, to everybody who watches,
// and to the console that vmm was started on, if there is one. Only that last one
// makes the guest wait when it does not read.
type output struct {
	console io.Writer // nil if there is none

	mu       sync.Mutex
	log      *logFile              // guarded by mu; nil: none is kept
	watchers map[*watcher]struct{} // guarded by mu; nil once closed
	outages  outages               // guarded by mu; of the log
}

func newOutput(console io.Writer, log *logFile, tell func(err error, lost int64)) *output {
	return &output{console: console, log: log, outages: outages{tell: tell}, watchers: map[*watcher]struct{}{}}
}

// outages tells when a log cannot be written, and when it can again: not more often
// than sayAgain, for a guest may fill the disk by what it prints.
type outages struct {
	tell func(err error, lost int64) // err is nil when it can again
	said time.Time                   // when the last was told of
	told bool                        // of the one that is
	lost int64                       // bytes in those that nobody was told of
}

const sayAgain = time.Minute

// see looks at a write, before which lost bytes could not be written.
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

// Write implements io.Writer. It fails only where the console does.
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

// watch returns a watcher of all output from now on and of the last lines that
// the log has from before, or AllLines.
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

// Close ends all watchers, once they have read what there is.
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
	changed sync.Cond // of what follows
	data    []byte    // guarded by mu
	missed  int       // guarded by mu; bytes behind data for which there was no room
	closed  bool      // guarded by mu
}

// add appends what there is room for. A watcher that has missed something gets no
// more until it has read what it has.
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

// Read returns io.EOF after Close, or when the guest has ended for good.
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

// Close ends the watcher; a Read that waits returns.
func (w *watcher) Close() error {
	w.output.mu.Lock()
	delete(w.output.watchers, w)
	w.output.mu.Unlock()
	w.end()
	return nil
}

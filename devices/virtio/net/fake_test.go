package net

import (
	"bytes"
	"sync"

	"vmm/ethernet"
)

// wire is a test link. Like a tap it calls Readable on a goroutine of its own.
type wire struct {
	info ethernet.Info

	mu      sync.Mutex
	cond    sync.Cond
	guest   ethernet.Guest // guarded by mu, as is all below; nil: stopped
	frames  []frame        // for the guest
	flood   []byte         // a frame that comes without end
	sent    []frame        // by the guest
	busy    int            // how many more times Send returns ErrAgain
	keep    bool           // the sent frames
	asleep  bool           // Readable returned false
	calling bool           // a call of Readable is running
	mode    ethernet.Mode
	refuse  error // of Configure
	again   int   // Sends that were refused
}

type frame struct {
	header ethernet.Header
	bytes  []byte
}

func newWire(info ethernet.Info) *wire {
	w := &wire{info: info}
	w.cond.L = &w.mu
	return w
}

func (w *wire) Info() ethernet.Info { return w.info }

func (w *wire) Start(g ethernet.Guest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.guest = g
	w.poll()
	return nil
}

func (w *wire) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.guest = nil
	for w.calling {
		w.cond.Wait()
	}
	w.asleep = false
}

func (w *wire) Discard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames = nil
}

func (w *wire) Configure(m ethernet.Mode) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse == nil {
		w.mode = m
	}
	return w.refuse
}

func (w *wire) Resume(int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asleep = false
	w.poll()
}

// poll starts a call of Readable if there is reason to. The caller holds mu.
func (w *wire) poll() {
	if w.guest == nil || w.asleep || w.calling || len(w.frames) == 0 && w.flood == nil {
		return
	}
	g := w.guest
	w.calling, w.asleep = true, true // unless Resume comes meanwhile
	go func() {
		more := g.Readable(0)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calling = false
		w.cond.Broadcast()
		if w.asleep = w.asleep && !more; w.flood == nil {
			w.poll()
		}
	}()
}

// put sends a frame to the guest.
func (w *wire) put(f frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames = append(w.frames, f)
	w.poll()
}

func (w *wire) Send(_ int, h *ethernet.Header, bufs [][]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy > 0 {
		w.busy--
		w.again++
		if g := w.guest; g != nil {
			go g.Writable(0)
		}
		return ethernet.ErrAgain
	}
	if w.keep {
		w.sent = append(w.sent, frame{*h, bytes.Join(bufs, nil)})
		w.cond.Broadcast()
	}
	return nil
}

func (w *wire) Receive(_ int, h *ethernet.Header, bufs [][]byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := frame{bytes: w.flood}
	switch {
	case len(w.frames) > 0:
		f, w.frames = w.frames[0], w.frames[1:]
	case w.flood == nil:
		return 0, ethernet.ErrAgain
	}
	*h = f.header
	left := f.bytes
	for _, b := range bufs {
		left = left[copy(b, left):]
	}
	return len(f.bytes) - len(left), nil
}

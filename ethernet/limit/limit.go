// Package limit bounds the rate of a link, each way separately.
package limit

import (
	"sync"
	"time"

	"vmm/ethernet"
	"vmm/rate"
	"vmm/task"
)

// Rate is a bound; 0 means none.
type Rate struct {
	Bytes  float64 // of frames, per second
	Frames float64 // per second
	// Burst sets how much an idle link may send at once: what the full rate gives in
	// this time.
	Burst time.Duration
}

// DefaultBurst is used if Burst is 0.
const DefaultBurst = 100 * time.Millisecond

// Link bounds a link to a rate. Frames from the guest wait in the guest's queue, frames
// to it in the link's.
type Link struct {
	ethernet.Link
	Owner task.Owner // of its timers; set before Start

	guest    ethernet.Guest
	tx, rx   bucket
	now      func() time.Time
	schedule func(time.Duration, func())
}

// New returns link bounded to r.
func New(link ethernet.Link, r Rate) *Link {
	if r.Burst <= 0 {
		r.Burst = DefaultBurst
	}
	l := &Link{Link: link, now: time.Now}
	l.schedule = func(d time.Duration, f func()) { l.Owner.AfterFunc(d, f) }
	for _, b := range []*bucket{&l.tx, &l.rx} {
		b.bytes, b.frames = rate.New(r.Bytes, r.Burst, 0), rate.New(r.Frames, r.Burst, 1)
		b.timers = make([]bool, link.Info().Pairs)
	}
	return l
}

// Start implements ethernet.Link.
func (l *Link) Start(g ethernet.Guest) error {
	l.guest = g
	l.tx.start()
	l.rx.start()
	return l.Link.Start(guest{g, l})
}

// Stop implements ethernet.Link.
func (l *Link) Stop() {
	l.tx.stop()
	l.rx.stop()
	l.Link.Stop()
}

// guest is the card as seen by the link behind.
type guest struct {
	ethernet.Guest
	l *Link
}

// Readable implements ethernet.Guest.
func (g guest) Readable(pair int) bool { return !g.l.rxWaits(pair) && g.Guest.Readable(pair) }

// rxWaits reports whether frames to the guest must wait. If so, the link behind is
// resumed when one may pass.
func (l *Link) rxWaits(pair int) bool {
	wait := l.rx.wait(l.now())
	if wait > 0 {
		l.later(&l.rx, pair, wait, l.Link.Resume)
	}
	return wait > 0
}

// Send implements ethernet.Link.
func (l *Link) Send(pair int, h *ethernet.Header, frame [][]byte) error {
	if wait := l.tx.wait(l.now()); wait > 0 {
		l.later(&l.tx, pair, wait, l.guest.Writable)
		return ethernet.ErrAgain
	}
	err := l.Link.Send(pair, h, frame)
	if err != ethernet.ErrAgain {
		n := 0
		for _, b := range frame {
			n += len(b)
		}
		l.tx.take(n)
	}
	return err
}

// Receive implements ethernet.Link.
func (l *Link) Receive(pair int, h *ethernet.Header, bufs [][]byte) (int, error) {
	if l.rxWaits(pair) {
		return 0, ethernet.ErrAgain
	}
	n, err := l.Link.Receive(pair, h, bufs)
	if err == nil {
		l.rx.take(n)
	}
	return n, err
}

// later calls f for a pair after wait, unless the bucket is stopped by then. A pair has
// at most one timer, however often the guest tries.
func (l *Link) later(b *bucket, pair int, wait time.Duration, f func(pair int)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timers[pair] {
		return
	}
	b.timers[pair] = true
	l.schedule(wait, func() {
		b.mu.Lock()
		b.timers[pair] = false
		b.mu.Unlock()
		b.ifStarted(func() { f(pair) })
	})
}

// bucket bounds one direction. It may go into debt by the bytes of one frame, whose
// length is not known in advance.
type bucket struct {
	bytes, frames *rate.Bucket

	calls   sync.RWMutex // held for reading while a timer's function runs
	started bool         // guarded by calls

	mu     sync.Mutex
	timers []bool // guarded by mu; one for each pair
}

func (b *bucket) start() {
	b.calls.Lock()
	defer b.calls.Unlock()
	b.started = true
}

func (b *bucket) stop() {
	b.calls.Lock()
	defer b.calls.Unlock()
	b.started = false
}

func (b *bucket) ifStarted(f func()) {
	b.calls.RLock()
	defer b.calls.RUnlock()
	if b.started {
		f()
	}
}

// wait returns the time until a frame may pass; 0 means now.
func (b *bucket) wait(now time.Time) time.Duration {
	return max(b.bytes.Wait(now, 0), b.frames.Wait(now, 1))
}

func (b *bucket) take(n int) {
	b.bytes.Take(float64(n))
	b.frames.Take(1)
}

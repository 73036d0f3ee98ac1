// Package rate has the token bucket that bounds what a guest moves in a second.
package rate

import (
	"sync"
	"time"
)

// Bucket fills at a rate up to a depth, and may go into debt by what is taken:
// how much that is need not be known before. The zero value bounds nothing. All
// methods may be called on any goroutine.
type Bucket struct {
	rate, depth float64

	mu     sync.Mutex
	last   time.Time // guarded by mu, as is tokens; zero: it is full
	tokens float64
}

// New returns a full bucket of a rate per second; 0 is none. Who has idled may
// take what burst brings at once, and least in any case.
func New(perSecond float64, burst time.Duration, least float64) *Bucket {
	return &Bucket{rate: perSecond, depth: max(perSecond*burst.Seconds(), least)}
}

// Wait returns how long it takes until there is something in the bucket, and as
// much as need; 0 for now.
func (b *Bucket) Wait(now time.Time, need float64) time.Duration {
	if b.rate <= 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last.IsZero() {
		b.tokens = b.depth
	} else {
		b.tokens = min(b.tokens+now.Sub(b.last).Seconds()*b.rate, b.depth)
	}
	b.last = now
	if b.tokens > 0 && b.tokens >= need {
		return 0
	}
	return time.Duration((need-b.tokens)/b.rate*float64(time.Second)) + time.Microsecond
}

// Take takes n, whether there is as much or not.
func (b *Bucket) Take(n float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens -= n
}

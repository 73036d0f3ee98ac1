// Package rate has the token bucket that bounds what a guest moves per second.
package rate

import (
	"sync"
	"time"
)

// Bucket fills at a rate up to a depth, and may go into debt: the amount to take need
// not be known in advance. The zero value bounds nothing. All methods may be called on
// any goroutine.
type Bucket struct {
	rate, depth float64

	mu     sync.Mutex
	last   time.Time // guarded by mu, as is tokens; zero: full
	tokens float64
}

// New returns a full bucket with a rate per second; 0 means no bound. After idling,
// what burst adds may be taken at once, but at least least.
func New(perSecond float64, burst time.Duration, least float64) *Bucket {
	return &Bucket{rate: perSecond, depth: max(perSecond*burst.Seconds(), least)}
}

// Wait returns the time until the bucket is not empty and has at least need; 0 means
// now.
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

// Take takes n, even if the bucket has less.
func (b *Bucket) Take(n float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens -= n
}

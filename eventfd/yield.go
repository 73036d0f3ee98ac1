package eventfd

import (
	"runtime"
	"time"
)

// A Yielder is for a goroutine that repeatedly blocks in the kernel without ever
// parking in Go. To the runtime's monitor, a goroutine not scheduled for 10 ms hogs
// its processor (P). The monitor takes the processor away in every system call, and
// the goroutine waits for another one when it returns. That takes longer than the
// wake-up itself (BenchmarkIdle). The zero value is ready to use.
type Yielder struct{ waited, yielded time.Time }

// yieldEvery leaves room for a wait within the 10 ms. A yield is not cheap: the
// runtime starts a thread that looks for work, and moves the goroutine to it.
const (
	hogs       = 10 * time.Millisecond
	yieldEvery = 4 * time.Millisecond
)

// Yield is called before each wait. After a wait of 10 ms or more a yield has no
// benefit.
func (y *Yielder) Yield() {
	if y.due(time.Now()) {
		runtime.Gosched()
	}
}

// due is called at each wait and reports whether to yield before it.
func (y *Yielder) due(now time.Time) (due bool) {
	if now.Sub(y.yielded) > yieldEvery {
		due = now.Sub(y.waited) < hogs
		y.yielded = now
	}
	y.waited = now
	return due
}

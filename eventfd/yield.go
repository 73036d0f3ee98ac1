package eventfd

import (
	"runtime"
	"time"
)

// A Yielder is for a goroutine that blocks in the kernel again and again without
// ever parking in Go. To the runtime's monitor one that is not scheduled for
// 10 ms hogs its processor: in every system call it takes that away, and the
// goroutine waits for another when it returns, which takes longer than the wake
// itself (BenchmarkIdle). The zero value is ready.
type Yielder struct{ waited, yielded time.Time }

// yieldEvery leaves room for a wait before the 10 ms are over. A yield is not
// cheap: it has the runtime start a thread that looks for work, and move the
// goroutine to that.
const (
	hogs       = 10 * time.Millisecond
	yieldEvery = 4 * time.Millisecond
)

// Yield is called before each wait. After a wait of 10 ms or more there is
// nothing to lose.
func (y *Yielder) Yield() {
	if y.due(time.Now()) {
		runtime.Gosched()
	}
}

// due is called at each wait and says whether to yield before it.
func (y *Yielder) due(now time.Time) (due bool) {
	if now.Sub(y.yielded) > yieldEvery {
		due = now.Sub(y.waited) < hogs
		y.yielded = now
	}
	y.waited = now
	return due
}

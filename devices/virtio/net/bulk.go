package net

import (
	"runtime"

	"golang.org/x/sys/unix"

	"vmm/devices/virtio/virtq"
)

const (
	// bulk is how many bytes, moved at once, make a stream of it: more than a
	// frame that is not cut by who sends it.
	bulk = 16 << 10
	// streamEnd is how many times in a row there is less before it has ended.
	streamEnd = 16
)

// pace is how eager the thread is that serves a queue.
//
// A thread that the guest's notification wakes takes the processor from the
// guest, if there is no idle one: each frame stops the guest for its kick and
// again for our interrupt, and there is just one to be sent. In a stream the
// guest had better go on. Then the thread is SCHED_BATCH, which waits for its turn
// unless a processor is idle (sched(7)), and finds more frames.
type pace struct {
	q     *virtq.Queue    // whose goroutine it is
	attr  *unix.SchedAttr // of a thread in a stream, to which it is locked; else nil
	fixed bool            // the policy is another one, or cannot be changed
	less  int             // how often in a row it moved less than bulk
}

// moved is called on the goroutine of q, which has moved n bytes.
func (p *pace) moved(q *virtq.Queue, n uint64) {
	if p.q != q { // a new goroutine; the thread of the last has ended with it
		*p = pace{q: q}
	}
	switch {
	case n >= bulk:
		p.less = 0
		if p.attr == nil && !p.fixed {
			p.wait()
		}
	case p.attr != nil:
		if p.less++; p.less == streamEnd {
			p.hurry()
		}
	}
}

// wait makes the thread SCHED_BATCH.
func (p *pace) wait() {
	runtime.LockOSThread()
	attr, err := unix.SchedGetAttr(0, 0)
	if p.fixed = err != nil || attr.Policy != unix.SCHED_NORMAL; !p.fixed {
		attr.Policy = unix.SCHED_BATCH
		p.fixed = unix.SchedSetAttr(0, attr, 0) != nil
	}
	if p.fixed {
		runtime.UnlockOSThread()
		return
	}
	p.attr = attr
}

// hurry undoes wait. A thread whose policy stays is left to this goroutine.
func (p *pace) hurry() {
	p.attr.Policy = unix.SCHED_NORMAL
	if p.fixed = unix.SchedSetAttr(0, p.attr, 0) != nil; !p.fixed {
		runtime.UnlockOSThread()
	}
	p.attr = nil
}

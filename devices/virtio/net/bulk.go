package net

import (
	"runtime"

	"golang.org/x/sys/unix"

	"vmm/devices/virtio/virtq"
)

const (
	// bulk is how many bytes, moved at once, indicate a stream: more than a frame
	// that the sender does not split.
	bulk = 16 << 10
	// streamEnd is how many smaller moves in a row end a stream.
	streamEnd = 16
)

// pace is the scheduling policy of the thread that serves a queue.
//
// A thread that the guest's notification wakes takes the processor from the guest if
// no processor is idle: each frame stops the guest for its kick and again for our
// interrupt, and there is only one frame to send. In a stream it is better to let the
// guest continue. The thread is then SCHED_BATCH: it waits for its turn unless a
// processor is idle (sched(7)), and finds more frames.
type pace struct {
	q     *virtq.Queue    // the queue whose goroutine this is
	attr  *unix.SchedAttr // of the thread in a stream, to which the goroutine is locked; else nil
	fixed bool            // the policy is a different one, or cannot be changed
	less  int             // how often in a row it moved less than bulk
}

// moved is called on the goroutine of q, which has moved n bytes.
func (p *pace) moved(q *virtq.Queue, n uint64) {
	if p.q != q { // a new goroutine; the last one's thread has ended with it
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

// hurry undoes wait. If the policy cannot be restored, the goroutine stays locked to
// its thread.
func (p *pace) hurry() {
	p.attr.Policy = unix.SCHED_NORMAL
	if p.fixed = unix.SchedSetAttr(0, p.attr, 0) != nil; !p.fixed {
		runtime.UnlockOSThread()
	}
	p.attr = nil
}

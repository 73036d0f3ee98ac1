package net

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"vmm/devices/virtio/virtq"
)

// policy returns the scheduling policy of the calling thread.
func policy(t *testing.T) uint32 {
	t.Helper()
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a.Policy
}

// TestPace: a thread waits for its turn during a stream, and only then. The next
// goroutine starts afresh.
func TestPace(t *testing.T) {
	if p := policy(t); p != unix.SCHED_NORMAL {
		t.Skipf("the test itself runs with policy %d", p)
	}
	runtime.LockOSThread() // else the test looks at another thread
	defer runtime.UnlockOSThread()
	var p pace
	q := new(virtq.Queue)
	see := func(when string, want uint32) {
		t.Helper()
		if got := policy(t); got != want {
			t.Fatalf("%s the policy is %d, not %d", when, got, want)
		}
	}
	for range 3 * streamEnd {
		p.moved(q, bulk-1)
	}
	see("before a stream", unix.SCHED_NORMAL)
	for range 2 {
		p.moved(q, bulk)
		see("in a stream", unix.SCHED_BATCH)
		for range 3 {
			for range streamEnd - 1 {
				p.moved(q, 100)
			}
			p.moved(q, bulk)
		}
		see("in a stream with pauses", unix.SCHED_BATCH)
		for range streamEnd {
			p.moved(q, 100)
		}
		see("after a stream", unix.SCHED_NORMAL)
	}
	p.moved(q, bulk)
	for range streamEnd {
		p.moved(new(virtq.Queue), 100)
	}
	see("for another goroutine, whose thread it is not,", unix.SCHED_BATCH)
	p.moved(q, bulk) // under a policy that it did not set
	if p.attr != nil || !p.fixed {
		t.Error("a policy that it found was taken for its own")
	}
	for range streamEnd {
		p.moved(q, 100)
	}
	see("that somebody else has set", unix.SCHED_BATCH)
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
	runtime.UnlockOSThread() // undoes moved's lock, which was forgotten with its goroutine
}

// TestPaceAllocates nothing during a stream.
func TestPaceAllocates(t *testing.T) {
	var p pace
	q := new(virtq.Queue)
	if n := testing.AllocsPerRun(100, func() { p.moved(q, bulk); p.moved(q, 10) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for range streamEnd {
		p.moved(q, 0)
	}
}

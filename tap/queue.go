package tap

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmm/ethernet"
	"vmm/eventfd"
	"vmm/task"
)

// queue is one queue pair of a tap.
type queue struct {
	fd       int
	disabled bool // detached from the tap for now; only possible with multi-queue
	events   *eventfd.FD
	stopping atomic.Bool
	done     task.Group

	received, sent vector
	flat           []byte // for a frame in too many pieces
}

func newQueue(fd int) (*queue, error) {
	events, err := eventfd.New()
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &queue{fd: fd, events: events}, nil
}

func (q *queue) close() error {
	q.events.Close()
	return os.NewSyscallError("close", unix.Close(q.fd))
}

// enable attaches the queue to its tap, or detaches it.
func (q *queue) enable(on bool) error {
	if on == !q.disabled {
		return nil
	}
	flag := uint16(unix.IFF_DETACH_QUEUE)
	if on {
		flag = unix.IFF_ATTACH_QUEUE
	}
	r, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	r.SetUint16(flag)
	if err := unix.IoctlIfreq(q.fd, unix.TUNSETQUEUE, r); err != nil {
		return os.NewSyscallError("TUNSETQUEUE", err)
	}
	q.disabled = !on
	return nil
}

// discard drops frames that came while no guest listened: at most what a queue holds,
// or a fast network would keep us here.
func (q *queue) discard() {
	var b [ethernet.HeaderSize]byte // the rest of the frame is lost
	for range 1 << 16 {
		if _, err := unix.Read(q.fd, b[:]); err != nil && err != unix.EINTR {
			return
		}
	}
}

// start calls readable whenever there are frames, on its own goroutine, which blocks in
// the kernel: the guest waits for it with each frame.
func (q *queue) start(readable func() bool) {
	q.stopping.Store(false)
	q.done.Go(func() { q.watch(readable) })
}

func (q *queue) watch(readable func() bool) {
	fds := []unix.PollFd{{Fd: int32(q.events.Fd()), Events: unix.POLLIN}, {Fd: int32(q.fd), Events: unix.POLLIN}}
	event, frame := &fds[0], &fds[1]
	var y eventfd.Yielder
	for {
		y.Yield()
		if _, err := unix.Poll(fds, -1); err != nil {
			continue // EINTR
		}
		if event.Revents != 0 {
			q.events.Wait() // does not block
			if q.stopping.Load() {
				return
			}
			frame.Fd = int32(q.fd)
			continue
		}
		// A deleted tap gives errors forever: stop polling it.
		if frame.Revents&unix.POLLIN == 0 || !readable() {
			frame.Fd = -1
		}
	}
}

func (q *queue) resume() { q.events.Signal() }

func (q *queue) stop() {
	q.stopping.Store(true)
	q.events.Signal()
	q.done.Wait()
}

// Receive implements ethernet.Link.
func (t *Tap) Receive(pair int, h *ethernet.Header, bufs [][]byte) (int, error) {
	q := t.queues[pair]
	n, err := q.received.call(unix.SYS_READV, q.fd, h, bufs)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, ethernet.ErrAgain
	case err != nil:
		return 0, os.NewSyscallError("readv", err)
	}
	return max(n-ethernet.HeaderSize, 0), nil
}

// Send implements ethernet.Link.
func (t *Tap) Send(pair int, h *ethernet.Header, frame [][]byte) error {
	q := t.queues[pair]
	if len(frame) > maxVector {
		q.flat = q.flat[:0]
		for _, b := range frame {
			q.flat = append(q.flat, b...)
		}
		frame = [][]byte{q.flat}
	}
	if _, err := q.sent.call(unix.SYS_WRITEV, q.fd, h, frame); err != nil {
		return os.NewSyscallError("writev", err)
	}
	return nil
}

package hostdir

import (
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmm/rate"
	"vmm/task"
)

// One request of a guest may take the host minutes. It is done in pieces, with a check
// in between whether the device is to stop.

// A bell rings from Interrupt to Continue.
type bell struct {
	mu    sync.Mutex
	rung  chan struct{} // guarded by mu; closed while it rings; nil: not used yet
	heard bool          // guarded by mu; rung is closed
}

// channel returns a channel that is closed while the bell rings.
func (b *bell) channel() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) rings() bool {
	select {
	case <-b.channel():
		return true
	default:
		return false
	}
}

// Interrupt makes long operations end early until Continue: a copy returns what it has
// done so far, the allocation of a range and a syncfs return EINTR, and waits for the
// rate end at once. It may be called at any time.
func (d *Dir) Interrupt() {
	d.bell.mu.Lock()
	defer d.bell.mu.Unlock()
	if d.bell.heard {
		return
	}
	if d.bell.rung == nil {
		d.bell.rung = make(chan struct{})
	}
	close(d.bell.rung)
	d.bell.heard = true
}

// Continue undoes Interrupt.
func (d *Dir) Continue() {
	d.bell.mu.Lock()
	defer d.bell.mu.Unlock()
	d.bell.rung, d.bell.heard = nil, false
}

// Metered reports whether reads and writes are limited by the rate or counted by the
// quota.
func (d *Dir) Metered() bool { return d.bucket != nil || d.quota != nil }

// rateBurst sets how much an idle guest may move at once: what the full rate gives in
// this time. rateLeast is the least burst: one request.
const (
	rateBurst = 100 * time.Millisecond
	rateLeast = 64 << 10
)

func newBucket(bytes uint64) *rate.Bucket {
	if bytes == 0 {
		return nil
	}
	return rate.New(float64(bytes), rateBurst, rateLeast)
}

// paced moves bytes when the rate allows.
func (d *Dir) paced(move func() (int, error)) (int, error) {
	if d.bucket == nil {
		return move()
	}
	for !d.bell.rings() {
		wait := d.bucket.Wait(time.Now(), 0)
		if wait == 0 {
			break
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-d.bell.channel():
		}
		timer.Stop()
	}
	n, err := move()
	d.bucket.Take(float64(max(n, 0)))
	return n, err
}

// Sizes of the pieces.
const (
	copyPiece     = 4 << 20
	maxCopy       = 64 << 20 // per request; the guest asks again for the rest
	allocatePiece = 256 << 20
	maxPieces     = 1024
)

// copyRange copies up to n bytes, and returns how many it copied.
func (d *Dir) copyRange(from, to int, off, at int64, n uint64) (done int, err error) {
	for left := int(min(n, maxCopy)); left > 0; {
		piece := min(left, copyPiece)
		var moved int
		moved, err = d.paced(func() (moved int, err error) {
			err = d.spendRange(to, at, int64(piece), func() (err error) {
				moved, err = got(func() (int, error) { return unix.CopyFileRange(from, &off, to, &at, piece, 0) })
				return err
			})
			return moved, err
		})
		if err != nil || moved == 0 {
			break
		}
		if done, left = done+moved, left-moved; d.bell.rings() {
			break
		}
	}
	if done > 0 {
		err = nil // the guest asks for the rest, and gets the error then
	}
	return done, err
}

// allocate is fallocate(2).
func (d *Dir) allocate(fd int, mode uint32, off, n int64) error {
	whole := mode&(unix.FALLOC_FL_COLLAPSE_RANGE|unix.FALLOC_FL_INSERT_RANGE) != 0
	if whole || off < 0 || n <= 0 || off+n < 0 { // the host reports errors
		return d.spend(fd, blockSlack, func() error { return fallocate(fd, mode, off, n) })
	}
	// A guest may name a huge range: bound the number of pieces.
	most := n/maxPieces/allocatePiece*allocatePiece + allocatePiece
	for {
		piece := min(n, most-off%allocatePiece)
		change := func() error { return fallocate(fd, mode, off, piece) }
		err := error(nil)
		if mode&unix.FALLOC_FL_PUNCH_HOLE != 0 {
			err = d.spend(fd, 0, change)
		} else {
			err = d.spendRange(fd, off, piece, change)
		}
		if off, n = off+piece, n-piece; err != nil || n == 0 {
			return err
		}
		if d.bell.rings() {
			return unix.EINTR
		}
	}
}

func fallocate(fd int, mode uint32, off, n int64) error {
	return again(func() error { return unix.Fallocate(fd, mode, off, n) })
}

// syncs calls syncfs(2), which cannot be interrupted, on a goroutine that callers need
// not wait for. One call runs at a time, and one may come next: it serves all callers
// that ask while one is running, because that one may have missed what they wrote.
type syncs struct {
	mu      sync.Mutex
	running bool     // guarded by mu
	next    *syncing // guarded by mu
}

type syncing struct {
	fd   int // its own descriptor: the directory may be closed meanwhile
	done chan struct{}
	err  error // valid once done
}

// SyncFS writes the host's cached changes of the file system to disk.
func (d *Dir) SyncFS() fuse.Status {
	if d.readOnly {
		return fuse.OK
	}
	c, err := d.syncs.ask(d.closing.Owner, func() (int, error) { return d.reopen(d.root, unix.O_RDONLY|unix.O_DIRECTORY) })
	if err != nil {
		return status(err)
	}
	select {
	case <-c.done:
		return status(c.err)
	case <-d.bell.channel():
		return fuse.EINTR
	}
}

// ask returns a call that has not begun yet.
func (s *syncs) ask(owner task.Owner, open func() (int, error)) (*syncing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		return s.next, nil
	}
	fd, err := open()
	if err != nil {
		return nil, err
	}
	c := &syncing{fd: fd, done: make(chan struct{})}
	if s.running {
		s.next = c
		return c, nil
	}
	s.running = true
	owner.Go(func() { s.run(c) })
	return c, nil
}

func (s *syncs) run(c *syncing) {
	for c != nil {
		c.err = again(func() error { return syncfs(c.fd) })
		unix.Close(c.fd)
		close(c.done)
		s.mu.Lock()
		c, s.next = s.next, nil
		s.running = c != nil
		s.mu.Unlock()
	}
}

// syncfs is replaced by tests.
var syncfs = unix.Syncfs

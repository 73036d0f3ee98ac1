package hostdir

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Quota bounds what a guest adds to a directory: blocks of files, as du(1) counts them,
// and inodeCost for each file that it makes. What existed before is not counted, nor
// what the host adds or removes. The guest gets no credit for freeing blocks of files
// that it has not grown. One Quota is used for all lives of the guest in a process:
// each Dir gets the same.
type Quota struct {
	size, inodes int64

	mu   sync.Mutex
	used int64         // guarded by mu; the costs of all inodes, and all promises
	cost map[key]int64 // guarded by mu; of existing inodes that the guest has made or grown
	refs map[key]int   // guarded by mu; how many descriptors an inode has

	// One of these is held while the cost of a change to an inode is measured; dirs is
	// for directories.
	files, dirs [64]sync.Mutex
}

// What an inode costs besides its blocks, and how many a guest may have at most: each
// needs an entry in cost.
const (
	inodeCost = 4 << 10
	maxInodes = 1 << 20
)

// NewQuota returns a quota of size bytes.
func NewQuota(size int64) *Quota {
	return &Quota{size: size, inodes: min(size/inodeCost, maxInodes), cost: map[key]int64{}, refs: map[key]int{}}
}

// Size returns the bound in bytes.
func (q *Quota) Size() int64 { return q.size }

// String describes the quota for a log.
func (q *Quota) String() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return fmt.Sprintf("%d of %d bytes, %d files", q.used, q.size, len(q.cost))
}

// take promises n bytes, or returns false if there are not enough. The caller gives the
// promise back.
func (q *Quota) take(n int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n > 0 && q.used > q.size-n {
		return false
	}
	q.used += n
	return true
}

func (q *Quota) give(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used -= n
}

// charge raises the cost of an inode by n bytes, or lowers it, but never below 0.
func (q *Quota) charge(k key, n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := max(q.cost[k]+n, 0)
	q.used += now - q.cost[k]
	if q.cost[k] = now; now == 0 {
		delete(q.cost, k)
	}
}

// left returns how many bytes and inodes may still be added.
func (q *Quota) left() (bytes, inodes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(q.size-q.used, 0), max(q.inodes-int64(len(q.cost)), 0)
}

// lock returns the lock to hold while an inode's cost changes.
func (q *Quota) lock(st *unix.Stat_t) *sync.Mutex {
	i := (st.Ino ^ st.Dev) % uint64(len(q.files))
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return &q.dirs[i]
	}
	return &q.files[i]
}

// An estimate returns how many bytes a change takes at most.
type estimate func(*unix.Stat_t) int64

// spend makes a change to a descriptor's inode, which may take n more bytes, and counts
// what it took.
func (d *Dir) spend(fd int, n int64, change func() error) error {
	return d.spendWithin(fd, change, func(*unix.Stat_t) int64 { return n })
}

// spendWithin is spend with several estimates, each better and slower than the one
// before.
func (d *Dir) spendWithin(fd int, change func() error, estimates ...estimate) error {
	q := d.quota
	if q == nil {
		return change()
	}
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return err
	}
	mu := q.lock(&st)
	mu.Lock()
	defer mu.Unlock()
	if err := fstat(fd, &st); err != nil {
		return err
	}
	for _, e := range estimates {
		n := e(&st)
		if !q.take(n) {
			continue
		}
		defer q.give(n)
		before := st.Blocks
		err := change()
		if e := fstat(fd, &st); e == nil {
			q.charge(key{st.Dev, st.Ino}, (st.Blocks-before)*512)
		}
		return err
	}
	return unix.ENOSPC
}

// pageSize is the unit in which a file grows. blockSlack is what its file system may
// need in addition to record where the blocks are.
const (
	pageSize   = 4 << 10
	blockSlack = 8 << 10
)

// pages returns the size of the pages that n bytes from off on touch.
func pages(off, n int64) int64 {
	return (off+n+pageSize-1)/pageSize*pageSize - off/pageSize*pageSize
}

// spendRange is spend for a change that puts data into n bytes of a file from off on.
// Overwriting data takes nothing: a program must be able to change its files when no
// room is left.
func (d *Dir) spendRange(fd int, off, n int64, change func() error) error {
	return d.spendWithin(fd, change,
		func(*unix.Stat_t) int64 { return pages(off, n) + blockSlack },
		func(st *unix.Stat_t) int64 {
			left, _ := d.quota.left()
			return holes(fd, st, off, n, left)
		})
}

// holes returns the size of the pages in a range that have no data, plus the overhead
// of filling them. It stops counting once it exceeds most.
func holes(fd int, st *unix.Stat_t, off, n, most int64) int64 {
	size := (st.Size + pageSize - 1) / pageSize * pageSize // the last page counts as present
	dense := st.Blocks*512 >= size
	end := off + n
	none := int64(0)
	for at := off; at < end && none <= most; {
		if at >= size {
			none += pages(at, end-at)
			break
		}
		if dense {
			at = size
			continue
		}
		data, hole := seek(fd, at, unix.SEEK_DATA), seek(fd, at, unix.SEEK_HOLE)
		switch {
		case data == at && hole > at: // data up to there, and in the rest of the page
			at = (hole + pageSize - 1) / pageSize * pageSize
		case data < 0:
			data = size
			fallthrough
		default:
			upTo := min(max(data, at+1), end)
			none += pages(at, upTo-at)
			at = upTo
		}
	}
	if none > 0 {
		none += blockSlack
	}
	return none
}

// seek returns -1 for an error.
func seek(fd int, off int64, whence int) int64 {
	at := int64(-1)
	again(func() (err error) {
		at, err = unix.Seek(fd, off, whence)
		return err
	})
	return at
}

// making wraps a call that makes an inode, which costs its own blocks and the growth of
// the directory. The caller charges an inode without a name.
func (d *Dir) making(b *birth, make func() error) error {
	q := d.quota
	if q == nil {
		return make()
	}
	if _, inodes := q.left(); inodes == 0 || !q.take(inodeCost) {
		return unix.ENOSPC
	}
	defer q.give(inodeCost) // by then it is charged to the inode
	err := d.spend(b.parent.fd, blockSlack, make)
	var st unix.Stat_t
	if err == nil && b.name != "" && fstatat(b.parent.fd, b.name, &st) == nil {
		d.charged(&st)
	}
	return err
}

// charged charges the quota for a new inode.
func (d *Dir) charged(st *unix.Stat_t) {
	if d.quota != nil {
		d.quota.charge(key{st.Dev, st.Ino}, inodeCost+st.Blocks*512)
	}
}

// spendXattr wraps a change of an attribute to n bytes, or its removal if n is -1. Not
// every file system counts attributes in an inode's blocks, so they are counted by
// their size.
func (d *Dir) spendXattr(fd int, name string, n int, change func() error) error {
	q := d.quota
	var st unix.Stat_t
	if q == nil {
		return change()
	}
	if err := fstat(fd, &st); err != nil {
		return err
	}
	mu := q.lock(&st)
	mu.Lock()
	defer mu.Unlock()
	more := int64(0)
	if n >= 0 {
		more += int64(len(name) + n)
	}
	if had, err := got(func() (int, error) { return unix.Getxattr(procPath(fd), name, nil) }); err == nil {
		more -= int64(len(name) + had)
	}
	promise := max(more, 0)
	if !q.take(promise) {
		return unix.ENOSPC
	}
	defer q.give(promise)
	err := change()
	if err == nil {
		q.charge(key{st.Dev, st.Ino}, more)
	}
	return err
}

// refer counts a descriptor of a node or handle: a deleted file takes room while it is
// open.
func (d *Dir) refer(k key) {
	if q := d.quota; q != nil {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.refs[k]++
	}
}

// unrefer closes a descriptor that refer counted.
func (d *Dir) unrefer(fd int) {
	if fd < 0 {
		return
	}
	var st unix.Stat_t
	if d.quota != nil && fstat(fd, &st) == nil {
		d.quota.unrefer(key{st.Dev, st.Ino}, st.Nlink == 0)
	}
	unix.Close(fd)
}

func (q *Quota) unrefer(k key, deleted bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.refs[k]--; q.refs[k] > 0 {
		return
	}
	delete(q.refs, k)
	if deleted {
		q.used -= q.cost[k]
		delete(q.cost, k)
	}
}

// replacing wraps a change that may delete a name's inode, which may be unknown to the
// guest.
func (d *Dir) replacing(dir *node, name string, n int64, change func() error) error {
	if d.quota == nil {
		return change()
	}
	fd, err := d.handleAt(dir.fd, name)
	var st unix.Stat_t
	if err == nil && fstat(fd, &st) == nil {
		d.refer(key{st.Dev, st.Ino})
		defer d.unrefer(fd)
	} else {
		closeFD(fd)
	}
	return d.spend(dir.fd, n, change)
}

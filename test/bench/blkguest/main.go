// Blkguest runs inside the guest of the disk benchmark (docs/bench.md). It reads and
// writes /dev/vda past the guest's page cache, in one phase after another, and prints
// for each
//
//	BENCH-BEGIN NAME
//	BENCH-END NAME OPERATIONS NANOSECONDS
//
// with only that phase in between. The last line is BENCH-DONE, or BENCH-FAILED and the
// error. With an argument it uses that file instead.
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

const (
	warmUp  = 500 * time.Millisecond // not counted
	counted = 2 * time.Second
)

// phase is one pattern of access.
type phase struct {
	name   string
	size   int // bytes per operation
	depth  int // operations in flight
	random bool
	write  bool
}

var phases = []phase{
	{"rand1", 4 << 10, 1, true, false},
	{"rand8", 4 << 10, 8, true, false},
	{"read", 1 << 20, 4, false, false},
	{"write", 1 << 20, 4, false, true},
}

func main() {
	// One thread, and no garbage collector beside it: the guest has one CPU.
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	path := "/dev/vda"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	if err := execute(path); err != nil {
		fmt.Println("BENCH-FAILED", err)
		os.Exit(1)
	}
	fmt.Println("BENCH-DONE")
}

func execute(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	length, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return &os.PathError{Op: "seek", Path: path, Err: err}
	}
	for _, p := range phases {
		if err := p.run(fd, length); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// run runs the phase, after a warm-up, and prints its lines.
func (p phase) run(fd int, length int64) error {
	if length < int64(p.size*p.depth) {
		return fmt.Errorf("a disk of %d bytes is too small", length)
	}
	q, err := newQueue(fd, p.depth, p.size, p.write)
	if err != nil {
		return err
	}
	defer q.close()
	places := p.places(length)
	if _, _, err := p.loop(q, places, warmUp); err != nil {
		return err
	}
	fmt.Printf("BENCH-BEGIN %s\n", p.name)
	operations, took, err := p.loop(q, places, counted)
	if err != nil {
		return err
	}
	fmt.Printf("BENCH-END %s %d %d\n", p.name, operations, took.Nanoseconds())
	return nil
}

// places returns the function that returns the offset of the next operation. The
// offsets are the same for every rival.
func (p phase) places(length int64) func() int64 {
	blocks, next := length/int64(p.size), int64(-1)
	random := rand.New(rand.NewPCG(1, uint64(p.depth)))
	return func() int64 {
		if p.random {
			return random.Int64N(blocks) * int64(p.size)
		}
		next = (next + 1) % blocks
		return next * int64(p.size)
	}
}

// loop keeps depth operations in flight until limit, and returns when the last has
// ended.
func (p phase) loop(q *queue, place func() int64, limit time.Duration) (operations int, took time.Duration, err error) {
	began := time.Now()
	for slot := range p.depth {
		if err := q.submit(slot, place()); err != nil {
			return 0, 0, err
		}
	}
	for inFlight := p.depth; inFlight > 0; {
		done, err := q.wait()
		if err != nil {
			return 0, 0, err
		}
		operations += len(done)
		more := time.Since(began) < limit
		for _, slot := range done {
			if !more {
				inFlight--
			} else if err := q.submit(slot, place()); err != nil {
				return 0, 0, err
			}
		}
	}
	return operations, time.Since(began), nil
}

// Fsguest runs inside the guest of the shared folder benchmark (docs/bench.md). It
// prints the same lines as blkguest: a phase's operations are reads of 1 MiB in the
// first two, and files in the others. Its arguments are 9p and the tag to mount, or at
// and a directory.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vmm/guest/modules"
)

const (
	settle  = 500 * time.Millisecond // not counted
	counted = 2 * time.Second

	names = 100       // existing files
	large = 64 << 20  // bytes of the file that is read
	piece = 1 << 20   // bytes of a read
	point = "/tmp/fs" // where it is mounted
)

func main() {
	// One thread, and no garbage collector beside it: the guest has one CPU.
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	if err := execute(os.Args[1], os.Args[2]); err != nil {
		fmt.Println("BENCH-FAILED", err)
		os.Exit(1)
	}
	fmt.Println("BENCH-DONE")
}

func execute(kind, source string) error {
	dir := source
	if kind == "9p" {
		if err := mount(source); err != nil {
			return err
		}
		dir = point
	}
	for _, p := range []struct {
		name string
		do   func(dir string) (step func(i int) error, err error)
	}{{"read", read}, {"direct", direct}, {"stat", stat}, {"open", open}, {"create", create}} {
		step, err := p.do(dir)
		if err == nil {
			err = run(p.name, step)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// options are the fastest for 9p. Its cache is off, as in a guest that must see the
// host's changes.
const options = "trans=virtio,version=9p2000.L,msize=1048576,cache=none"

func mount(tag string) error {
	list, err := os.ReadFile("/lib/modules/fsguest")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		if err := modules.Load("/lib/modules/" + name + ".ko"); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(point, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(tag, point, "9p", 0, options); err != nil {
		return fmt.Errorf("mount 9p: %w", err)
	}
	return nil
}

// run repeats step for settle, then for counted, and prints its lines.
func run(name string, step func(int) error) error {
	if _, _, err := loop(step, settle); err != nil {
		return err
	}
	fmt.Printf("BENCH-BEGIN %s\n", name)
	operations, took, err := loop(step, counted)
	if err != nil {
		return err
	}
	fmt.Printf("BENCH-END %s %d %d\n", name, operations, took.Nanoseconds())
	return nil
}

func loop(step func(int) error, limit time.Duration) (n int, took time.Duration, err error) {
	began := time.Now()
	for took < limit {
		if err := step(n); err != nil {
			return 0, 0, err
		}
		n++
		took = time.Since(began)
	}
	return n, took, nil
}

// read reads in order, and makes the guest drop its cache before each pass.
func read(dir string) (func(int) error, error) {
	f, err := os.Open(filepath.Join(dir, "large"))
	buf := make([]byte, piece)
	return func(i int) error {
		off := int64(i%(large/piece)) * piece
		if off == 0 {
			if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
				return err
			}
		}
		return whole(f.ReadAt(buf, off))
	}, err
}

// direct reads past the guest's cache.
func direct(dir string) (func(int) error, error) {
	f, err := os.OpenFile(filepath.Join(dir, "large"), unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		f, err = os.Open(filepath.Join(dir, "large")) // on the host, whose file system has no direct I/O
	}
	if err != nil {
		return nil, err
	}
	buf, err := unix.Mmap(-1, 0, piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	return func(i int) error { return whole(f.ReadAt(buf, int64(i%(large/piece))*piece)) }, err
}

func whole(n int, err error) error {
	if err == nil && n != piece {
		return fmt.Errorf("%d bytes of %d", n, piece)
	}
	return err
}

func fileName(dir string, i int) string { return filepath.Join(dir, fmt.Sprint("file", i%names)) }

// stat asks for current attributes, past the cache.
func stat(dir string) (func(int) error, error) {
	var st unix.Statx_t
	return func(i int) error {
		return unix.Statx(unix.AT_FDCWD, fileName(dir, i), unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	}, nil
}

func open(dir string) (func(int) error, error) {
	return func(i int) error { return opened(fileName(dir, i), 0) }, nil
}

func opened(path string, flags int) error {
	fd, err := unix.Open(path, unix.O_RDWR|flags, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// create makes a file and removes it.
func create(dir string) (func(int) error, error) {
	return func(i int) error {
		path := filepath.Join(dir, fmt.Sprint("new", i))
		if err := opened(path, unix.O_CREAT|unix.O_EXCL); err != nil {
			return err
		}
		return unix.Unlink(path)
	}, nil
}

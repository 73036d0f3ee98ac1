package hostdir

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmm/test/allow"
)

// patience bounds every wait.
var patience = allow.Time(20 * time.Second)

// soon waits for a call's result.
func soon[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("timeout: %s", what)
	}
	return v
}

// later makes a call on another goroutine.
func later[T any](f func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- f() }()
	return c
}

// TestInterruptCopy: an interrupted copy ends after a piece, and returns what it has
// copied.
func TestInterruptCopy(t *testing.T) {
	g := share(t, Options{})
	f := g.createAs(fuse.Owner{}, root, "f", 0o600)
	e := g.createAs(fuse.Owner{}, root, "e", 0o600)
	_, s := g.set(f.NodeId, fuse.FATTR_SIZE, func(in *fuse.SetAttrIn) { in.Size = 3 * copyPiece })
	g.must("truncate", s)
	in := fuse.CopyFileRangeIn{FhIn: f.Fh, FhOut: e.Fh, Len: 1 << 40}
	n, s := g.CopyFileRange(nil, &in)
	if s == fuse.EXDEV || s == fuse.Status(unix.EOPNOTSUPP) {
		t.Skip("the host's file system does not copy")
	}
	if g.must("copy", s); n != 3*copyPiece {
		t.Errorf("%d bytes were copied", n)
	}
	g.Interrupt()
	g.Interrupt()
	if n, s = g.CopyFileRange(nil, &in); n != copyPiece || !s.Ok() {
		t.Errorf("%d bytes, %v, while interrupted", n, s)
	}
	g.Continue()
	if n, s = g.CopyFileRange(nil, &in); n != 3*copyPiece || !s.Ok() {
		t.Errorf("%d bytes, %v, when it goes on", n, s)
	}
}

// TestInterruptAllocate: an interrupted allocation ends too, with EINTR.
func TestInterruptAllocate(t *testing.T) {
	g := share(t, Options{})
	f := g.createAs(fuse.Owner{}, root, "f", 0o600)
	punch := fuse.FallocateIn{Fh: f.Fh, Mode: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, Offset: 5, Length: 1 << 40}
	if s := g.Fallocate(nil, &punch); s == fuse.Status(unix.EOPNOTSUPP) {
		t.Skip("the host's file system makes no holes")
	}
	g.Interrupt()
	g.want("while interrupted", g.Fallocate(nil, &punch), fuse.EINTR)
	punch.Length = allocatePiece - 5
	g.must("one piece", g.Fallocate(nil, &punch))
	g.Continue()
	punch.Length = 1 << 40
	g.must("when it goes on", g.Fallocate(nil, &punch))
	punch.Offset, punch.Length = 0, math.MaxInt64/2
	soon(t, "a range that is as good as endless", later(func() fuse.Status { return g.Fallocate(nil, &punch) }))
	punch.Offset, punch.Length = math.MaxInt64-5, 6
	if s := g.Fallocate(nil, &punch); s.Ok() {
		t.Error("a range without an end")
	}
}

// TestInterruptSync: no request waits for a host syncfs that does not end. One runs
// at a time, and one more for those that ask meanwhile.
func TestInterruptSync(t *testing.T) {
	release, began, calls := make(chan struct{}), make(chan struct{}, 10), atomic.Int32{}
	syncfs = func(int) error {
		calls.Add(1)
		began <- struct{}{}
		<-release
		return unix.EIO
	}
	defer func() { syncfs = unix.Syncfs }()
	g := share(t, Options{})
	first := later(g.SyncFS)
	soon(t, "the first", began)
	others := []<-chan fuse.Status{later(g.SyncFS), later(g.SyncFS)}
	g.Interrupt()
	for _, c := range append(others, first) {
		g.want("interrupted", soon(t, "interrupt", c), fuse.EINTR)
	}
	g.Reset()
	g.Continue()
	next, err := g.syncs.ask(nil, func() (int, error) { return -1, unix.EMFILE }) // already queued
	if err != nil {
		t.Fatal(err)
	}
	close(release)
	if soon(t, "the one that comes next", next.done); next.err != unix.EIO {
		t.Errorf("the next: %v", next.err)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls", n)
	}
	syncfs = func(int) error { return nil }
	g.must("one more", soon(t, "one more", later(g.SyncFS)))
}

// TestRate: data moves as fast as the rate allows, and at once when the device is
// stopped.
func TestRate(t *testing.T) {
	g := share(t, Options{Rate: 1 << 20})
	f := g.createAs(fuse.Owner{}, root, "f", 0o600)
	if _, _, done := g.TryRead(f.Fh, [][]byte{make([]byte, 1)}, 0); done || !g.Metered() {
		t.Error("it is not left to who can wait")
	}
	data := [][]byte{make([]byte, 512<<10)}
	write := func() fuse.Status {
		_, s := g.WriteFrom(f.Fh, data, 0, false)
		return s
	}
	start := time.Now()
	g.must("the first, which goes into debt", write())
	g.must("the second", write())
	if took := time.Since(start); took < 350*time.Millisecond {
		t.Errorf("1 MiB took %v", took)
	}
	for range 100 { // 100 s of debt
		g.bucket.Take(1 << 20)
	}
	read := later(func() fuse.Status { return second(g.ReadInto(f.Fh, data, 0)) })
	g.Interrupt()
	g.must("read", soon(t, "read", read))
	g.must("write", soon(t, "write", later(write)))
	if share(t, Options{}).Metered() {
		t.Error("a share without a rate is metered")
	}
}

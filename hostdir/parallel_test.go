package hostdir

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestParallel: many requests at once, from a guest that forgets and closes what it
// is using at that moment. Nothing is left open afterwards, and no descriptor is used
// after it refers to another file: each file contains its own name.
func TestParallel(t *testing.T) {
	g := share(t, Options{Files: 200})
	const files = 10
	names := make([]string, files)
	for i := range names {
		names[i] = fmt.Sprint("file-", i)
		f, s := g.createFile(root, names[i], rdwr, 0o600)
		g.must("create", s)
		g.put(f.Fh, names[i], 0)
		g.Release(nil, &fuse.ReleaseIn{Fh: f.Fh})
		g.Forget(f.NodeId, 1)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 500 {
				g.useOne(random, names[random.IntN(files)])
			}
		})
	}
	all.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, n := range g.nodes {
		if id != root && (n.users != 0 || n.lookups == 0) {
			t.Errorf("node %+v is left", n)
		}
	}
	if open := len(g.nodes) - 1 + len(g.handles); g.open != open {
		t.Errorf("%d descriptors are counted, %d are open", g.open, open)
	}
}

// useOne uses a file, and numbers that may belong to other goroutines.
func (g *guest) useOne(random *rand.Rand, name string) {
	e, s := g.tryLookup(root, name)
	if !s.Ok() {
		g.Errorf("lookup: %v", s)
		return
	}
	out, s := g.openNode(e.NodeId, rdwr)
	if s.Ok() {
		buf := make([]byte, 20)
		n, s := g.ReadInto(out.Fh, [][]byte{buf}, 0)
		if s.Ok() && string(buf[:n]) != name {
			g.Errorf("%s has %q in it", name, buf[:n])
		}
	}
	switch other := 2 + random.Uint64N(e.NodeId); random.IntN(4) {
	case 0:
		g.Forget(other, 1)
	case 1:
		g.Release(nil, &fuse.ReleaseIn{Fh: other})
	case 2:
		g.Flush(nil, &fuse.FlushIn{Fh: other})
	case 3:
		g.GetAttr(nil, &fuse.GetAttrIn{InHeader: head(other)}, new(fuse.AttrOut))
	}
	g.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	g.Forget(e.NodeId, 1)
}

// TestLeaving: files of the guest before the reset that are still being closed count
// against the next guest.
func TestLeaving(t *testing.T) {
	g := share(t, Options{Files: 10})
	g.leaving.Store(10)
	_, s := g.createFile(root, "f", rdwr, 0o600)
	g.want("create", s, fuse.Status(unix.ENFILE))
	g.leaving.Store(0)
	_, s = g.createFile(root, "f", rdwr, 0o600)
	g.must("create", s)
}

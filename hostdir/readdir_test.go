package hostdir

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// An entry as the guest reads it.
type entry struct {
	name string
	node uint64 // from READDIRPLUS
	off  uint64
	kind uint32
	ino  uint64
}

// readDirAt reads a piece of a directory as the guest would, as struct fuse_dirent or
// fuse_direntplus.
func (g *guest) readDirAt(handle, off uint64, plus bool, size int) (list []entry) {
	g.Helper()
	buf := make([]byte, size)
	out := fuse.NewDirEntryList(buf, off)
	in := &fuse.ReadIn{InHeader: head(root), Fh: handle, Offset: off, Size: uint32(size)}
	prefix, s := 0, fuse.OK
	if plus {
		prefix, s = 128, g.ReadDirPlus(nil, in, out)
	} else {
		s = g.ReadDir(nil, in, out)
	}
	g.must("readdir", s)
	le := binary.LittleEndian
	for len(buf) >= prefix+24 {
		b := buf[prefix:]
		n := int(le.Uint32(b[16:]))
		if n == 0 {
			break // zeros after the last entry
		}
		e := entry{ino: le.Uint64(b), off: le.Uint64(b[8:]), kind: le.Uint32(b[20:]), name: string(b[24 : 24+n])}
		if plus {
			e.node = le.Uint64(buf)
		}
		list = append(list, e)
		buf = b[(24+n+7)&^7:]
	}
	return list
}

// readDirAll reads a directory from a position to its end.
func (g *guest) readDirAll(handle, off uint64, plus bool, size int) (all []entry) {
	g.Helper()
	for {
		list := g.readDirAt(handle, off, plus, size)
		if len(list) == 0 {
			return all
		}
		all = append(all, list...)
		off = list[len(list)-1].off
	}
}

func (g *guest) openDir(node uint64) uint64 {
	g.Helper()
	var out fuse.OpenOut
	g.must("opendir", g.OpenDir(nil, &fuse.OpenIn{InHeader: head(node)}, &out))
	return out.Fh
}

func TestReadDir(t *testing.T) {
	g := share(t, Options{})
	const n = 500
	for i := range n {
		write(t, filepath.Join(g.host, fmt.Sprintf("file-%d", i)), "")
	}
	for _, plus := range []bool{false, true} {
		for _, size := range []int{200, 4096, 64 << 10} {
			h := g.openDir(root)
			all := g.readDirAll(h, 0, plus, size)
			seen := map[string]bool{}
			for i, e := range all {
				if seen[e.name] {
					t.Errorf("%s comes twice", e.name)
				}
				seen[e.name] = true
				dot := e.name == "." || e.name == ".."
				if dot != (e.kind == unix.DT_DIR) || plus && dot != (e.node == 0) {
					t.Errorf("%+v", e)
				}
				if i%100 == 7 { // seekdir
					if rest := g.readDirAll(h, e.off, plus, size); len(rest) != len(all)-i-1 || rest[0].name != all[i+1].name {
						t.Errorf("from %d on: %d entries, want %d", i, len(rest), len(all)-i-1)
					}
				}
			}
			if len(all) != n+2 {
				t.Errorf("plus %v, size %d: %d entries, want %d", plus, size, len(all), n+2)
			}
			if again := g.readDirAll(h, 0, plus, size); len(again) != n+2 { // rewinddir
				t.Errorf("again: %d", len(again))
			}
			g.ReleaseDir(&fuse.ReleaseIn{Fh: h})
		}
	}
	if nodes, _ := g.count(); nodes != n+1 {
		t.Errorf("%d nodes", nodes)
	}
	h := g.openDir(root)
	in := &fuse.ReadIn{Fh: h, Size: 20}
	g.want("no room for one entry", g.ReadDir(nil, in, fuse.NewDirEntryList(make([]byte, 20), 0)), fuse.EINVAL)
	in.Offset = 1 << 63
	if s := g.ReadDir(nil, in, fuse.NewDirEntryList(make([]byte, 200), 0)); s.Ok() {
		t.Error("a position that cannot be")
	}
	g.want("fsyncdir", g.FsyncDir(nil, &fuse.FsyncIn{Fh: h}), fuse.OK)
	g.local = false
	g.want("flush of a directory", g.Flush(nil, &fuse.FlushIn{Fh: h}), fuse.EBADF)
	f, s := g.openNode(g.lookupName(root, "file-1").NodeId, unix.O_RDONLY)
	g.must("open", s)
	in = &fuse.ReadIn{Fh: f.Fh}
	g.want("readdir of a file", g.ReadDir(nil, in, fuse.NewDirEntryList(make([]byte, 200), 0)), fuse.EBADF)
}

// TestReadDirChanges: no other entry is missed or seen twice when entries come and go
// during a read.
func TestReadDirChanges(t *testing.T) {
	g := share(t, Options{})
	for i := range 300 {
		write(t, filepath.Join(g.host, fmt.Sprintf("file-%d", i)), "")
	}
	h := g.openDir(root)
	seen := map[string]int{}
	off := uint64(0)
	for i := 0; ; i++ {
		list := g.readDirAt(h, off, true, 4096)
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			seen[e.name]++
		}
		off = list[len(list)-1].off
		write(t, filepath.Join(g.host, fmt.Sprintf("more-%d", i)), "")
		if err := os.Remove(filepath.Join(g.host, list[0].name)); err != nil && list[0].name[0] != '.' {
			t.Fatal(err)
		}
	}
	for i := range 300 {
		if name := fmt.Sprintf("file-%d", i); seen[name] != 1 {
			t.Errorf("%s comes %d times", name, seen[name])
		}
	}
}

// TestLarge reads a directory with a hundred thousand entries.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const n = 100_000
	g := share(t, Options{Files: n + 100})
	dir, err := unix.Open(g.host, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	for i := range n {
		if err := unix.Symlinkat("x", dir, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	all := g.readDirAll(g.openDir(root), 0, false, 4096)
	seen := map[string]bool{}
	for _, e := range all {
		seen[e.name] = true
	}
	if len(all) != n+2 || len(seen) != n+2 {
		t.Errorf("%d entries, %d names", len(all), len(seen))
	}
}

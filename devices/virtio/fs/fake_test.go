package fs

import (
	"encoding/json"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// fake is a FileSystem with one file. Its attributes give the node's number, and its
// content is its offsets. Operations that are not here return ENOSYS.
type fake struct {
	fuse.RawFileSystem
	gate gate
	slow bool // not Quick, and nothing in the cache
	long bool // a write lasts until it is interrupted

	mu      sync.Mutex
	forgot  map[uint64]uint64 // guarded by mu
	written []byte            // guarded by mu
	killed  bool              // guarded by mu; the last write was to clear special bits
	made    fuse.Owner        // guarded by mu; owner of the last new directory
	names   []string          // guarded by mu; requested names
	resets  int               // guarded by mu
	bell    chan struct{}     // guarded by mu; closed by Interrupt
	synced  int               // guarded by mu
	state   string            // guarded by mu
}

func newFake() *fake {
	return &fake{RawFileSystem: fuse.NewDefaultRawFileSystem(), forgot: map[uint64]uint64{}, state: "{}"}
}

const fakeHandle = 7

func (f *fake) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.gate.pass()
	out.Ino = in.NodeId
	return fuse.OK
}

func (f *fake) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names = append(f.names, name)
	out.NodeId = uint64(len(name))
	return fuse.OK
}

func (f *fake) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made = in.Owner
	return fuse.OK
}

func (f *fake) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names = append(f.names, from, to)
	return fuse.OK
}

func (f *fake) Symlink(_ <-chan struct{}, in *fuse.InHeader, text, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names = append(f.names, name, text)
	return fuse.OK
}

func (f *fake) Readlink(<-chan struct{}, *fuse.InHeader) ([]byte, fuse.Status) {
	return []byte("elsewhere"), fuse.OK
}

func (f *fake) GetXAttr(_ <-chan struct{}, _ *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if len(dest) < 5 {
		return 5, fuse.ERANGE
	}
	return uint32(copy(dest, "value")), fuse.OK
}

func (f *fake) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names = append(f.names, name, string(data))
	return fuse.OK
}

func (f *fake) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	for out.AddDirEntry(fuse.DirEntry{Name: "entry", Ino: 5}) {
	}
	return fuse.OK
}

// ReadDirPlus panics, as a bug would.
func (f *fake) ReadDirPlus(<-chan struct{}, *fuse.ReadIn, *fuse.DirEntryList) fuse.Status {
	panic("of the test")
}

func (f *fake) Forget(node, n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot[node] += n
}

func (f *fake) Metered() bool { return f.long }

func (f *fake) Interrupt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bell != nil {
		close(f.bell)
		f.bell = nil
	}
}

func (f *fake) Continue() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bell == nil {
		f.bell = make(chan struct{})
	}
}

// wait blocks a long operation until it is interrupted.
func (f *fake) wait() {
	f.mu.Lock()
	bell := f.bell
	f.mu.Unlock()
	if f.long && bell != nil {
		f.gate.busy.Add(1)
		<-bell
		f.gate.busy.Add(-1)
	}
}

func (f *fake) Quick() bool { return !f.slow }

func (f *fake) TryRead(handle uint64, bufs [][]byte, off uint64) (int, fuse.Status, bool) {
	if f.slow {
		return 0, fuse.OK, false
	}
	n, s := f.ReadInto(handle, bufs, off)
	return n, s, true
}

func (f *fake) ReadInto(handle uint64, bufs [][]byte, off uint64) (n int, _ fuse.Status) {
	if handle != fakeHandle {
		return 0, fuse.EBADF
	}
	for _, b := range bufs {
		for i := range b {
			b[i] = byte(off) + byte(n)
			n++
		}
	}
	return n, fuse.OK
}

func (f *fake) WriteFrom(handle uint64, bufs [][]byte, off uint64, kill bool) (n int, _ fuse.Status) {
	if handle != fakeHandle {
		return 0, fuse.EBADF
	}
	f.wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written, f.killed = f.written[:0], kill
	for _, b := range bufs {
		f.written = append(f.written, b...)
	}
	return len(f.written), fuse.OK
}

func (f *fake) SyncFS() fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced++
	return fuse.OK
}

func (f *fake) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resets++
}

func (f *fake) Save() ([]byte, error) { return []byte(f.state), nil }

func (f *fake) Load(b []byte) error {
	var v struct{}
	return json.Unmarshal(b, &v)
}

// gate holds back requests, as a slow host would.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // guarded by mu; nil: open
	busy atomic.Int32  // requests that wait
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		g.busy.Add(1)
		<-shut
		g.busy.Add(-1)
	}
}

func (g *gate) hold() (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
	return g.open
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

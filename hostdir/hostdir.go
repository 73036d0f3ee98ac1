// Package hostdir is a directory of the host as a FUSE file system: what a guest
// may do with it, and that it cannot leave it.
//
// A guest names things in two ways: by the number of a node, which it was given,
// and by one component of a path below a node. So whatever it sends, the kernel
// is asked for one component below a directory that is open already, and never
// to follow a link: there is no path in which a link, a ".." or a rename made
// meanwhile could lead elsewhere.
//
//	guest: LOOKUP(node 7, "name")     here: fstatat, openat2(fd of 7, "name", O_PATH|O_NOFOLLOW)
//
// A node is an O_PATH descriptor, which keeps its inode whatever happens to its
// name. Only regular files and directories are ever opened for more, and that by
// way of the descriptor (/proc/self/fd), not of a name.
package hostdir

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmm/hostfile"
	"vmm/rate"
	"vmm/task"
)

// Options say what a guest may do.
type Options struct {
	ReadOnly bool
	// HostOwner has the guest see and set the host's modes, and nothing else: no
	// override is read or written.
	HostOwner bool
	// Quota bounds what the guest adds; nil does not.
	Quota *Quota
	// Rate is how many bytes a second the guest may read and write; 0 is no bound.
	Rate uint64
	// Owner is who in the guest owns the files of the user who runs this.
	Owner fuse.Owner
	// Files is how many descriptors the directory may hold open: one for each
	// file that the guest remembers, and one for each that it has open. 0 is
	// DefaultFiles.
	Files int
	Tasks task.Owner // of its goroutines
	// Held has the directory under its path; nil resolves that.
	Held *hostfile.Set
}

// DefaultFiles is a bound that suits the usual limit of descriptors.
const DefaultFiles = 100_000

// timeout is how long the guest may use what it knows of names and attributes
// without asking again: so long it may take until it sees a change of the host.
// Opening a file asks always.
const timeout = time.Second

// Dir is a directory that is shown to one guest. Its methods are those of
// fuse.RawFileSystem and a few more; they may be called on any goroutine, several
// at once, but for Reset, Save, Load and Close, which are called alone.
type Dir struct {
	root     int // O_PATH
	proc     int // /proc/self/fd, O_PATH
	dev      uint64
	rootKey  key
	path     string
	readOnly bool
	// hostOwner: see Options. noXattr: the file system has no user attributes.
	hostOwner, noXattr bool
	noOpenat2          bool // then mount is what is mounted at the root
	mount              int
	specials           atomic.Bool // a file has been seen that has special bits for the guest
	local              bool        // the file system is of this host
	memory             bool        // and has no medium
	owner              owner
	most               int // descriptors

	quota  *Quota
	bucket *rate.Bucket // of the rate; nil is none
	bell   bell
	syncs  syncs

	closing task.Group   // of what a guest had before a reset
	leaving atomic.Int64 // descriptors of that which are open still

	mu       sync.Mutex
	nodes    map[uint64]*node   // guarded by mu
	keys     map[key]*node      // guarded by mu; the same ones
	handles  map[uint64]*handle // guarded by mu
	last     uint64             // guarded by mu; the last number given to a node or handle
	open     int                // guarded by mu; descriptors of nodes and handles
	dirs     int                // guarded by mu; handles of directories
	memories int                // guarded by mu; nodes that have one
}

var _ fuse.RawFileSystem = (*Dir)(nil)

// Open opens the directory at path.
func Open(path string, o Options) (*Dir, error) {
	root, err := o.Held.OpenFD(path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		err = errors.Unwrap(err) // the path is said already
		return nil, fmt.Errorf("share %s: %w%s", path, err, advice(path, err))
	}
	d := &Dir{root: root, proc: -1, path: path, readOnly: o.ReadOnly, hostOwner: o.HostOwner, owner: invoker(o.Owner), most: o.Files, closing: task.Group{Owner: o.Tasks}}
	d.quota, d.bucket = o.Quota, newBucket(o.Rate)
	if d.most <= 0 {
		d.most = DefaultFiles
	}
	if err := d.prepare(); err != nil {
		d.Close()
		return nil, fmt.Errorf("share %s: %w", path, err)
	}
	d.Reset()
	return d, nil
}

// advice is what to do about an error of opening a directory.
func advice(path string, err error) string {
	switch err {
	case unix.ENOENT:
		return "; create it with: mkdir -p " + path
	case unix.ENOTDIR:
		return "; share the directory that it is in"
	}
	return ""
}

func (d *Dir) prepare() (err error) {
	if d.proc, err = openat(unix.AT_FDCWD, "/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return fmt.Errorf("/proc/self/fd: %w; mount /proc", err)
	}
	var fs unix.Statfs_t
	if err := fstatfs(d.root, &fs); err != nil {
		return err
	}
	if err := d.refuse(&fs); err != nil {
		return err
	}
	if d.noOpenat2 = !Openat2(); d.noOpenat2 {
		if d.mount, err = mountID(d.root); err != nil {
			return fmt.Errorf("openat2(2) is refused here, and %w; see vmm doctor", err)
		}
	}
	d.memory = fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC
	d.local = d.memory || slices.Contains(localTypes, fs.Type)
	var st unix.Stat_t
	if err := fstat(d.root, &st); err != nil {
		return err
	}
	d.dev, d.rootKey = st.Dev, key{st.Dev, st.Ino}
	var value [maxOverride]byte
	_, err = readOverride(d.root, &value)
	d.noXattr = err == unix.EOPNOTSUPP
	if d.readOnly {
		return nil
	}
	if err := again(func() error { return unix.Faccessat(d.root, ".", unix.W_OK|unix.X_OK, 0) }); err != nil {
		return fmt.Errorf("%w; you may not write there: share it with :ro", err)
	}
	return nil
}

// localTypes are file systems that ask nobody else.
var localTypes = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
	0x2fc12fc1, // ZFS, which is not of the kernel's sources
	0xca451a4e, // bcachefs
}

// Quick says that what needs no data of a file is answered at once, or as soon as
// this host's disk has it.
func (d *Dir) Quick() bool { return d.local }

// Close gives back all that is open. Nothing else may be called afterwards.
func (d *Dir) Close() error {
	d.drop()
	d.closing.Wait()
	if d.proc >= 0 {
		unix.Close(d.proc)
	}
	return unix.Close(d.root)
}

// Reset forgets all nodes and handles, as for a guest that starts anew.
func (d *Dir) Reset() {
	d.drop()
	d.mu.Lock()
	defer d.mu.Unlock()
	root := &node{id: fuse.FUSE_ROOT_ID, fd: d.root, key: d.rootKey, kind: unix.S_IFDIR, lookups: 1}
	d.nodes, d.keys, d.handles = map[uint64]*node{root.id: root}, map[key]*node{}, map[uint64]*handle{}
	d.last, d.open, d.dirs, d.memories = root.id, 0, 0, 0
}

// drop closes all descriptors but the root's, without waiting for that: there may
// be a million, and a vCPU that resets its device waits.
func (d *Dir) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	nodes, handles := d.nodes, d.handles
	for _, n := range d.keys {
		if n.lookups == 0 && nodes != nil { // kept for its memory
			nodes[n.id] = n
		}
	}
	d.nodes, d.keys, d.handles = nil, nil, nil
	if len(nodes)+len(handles) <= 1 {
		return // the root
	}
	d.leaving.Add(int64(len(nodes) - 1 + len(handles)))
	d.closing.Go(func() {
		for _, h := range handles {
			d.unrefer(h.fd)
			d.leaving.Add(-1)
		}
		for _, n := range nodes {
			if n.id != fuse.FUSE_ROOT_ID {
				d.unrefer(n.fd)
				d.leaving.Add(-1)
			}
		}
	})
}

func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

// String implements fuse.RawFileSystem.
func (d *Dir) String() string { return "hostdir" }

// SetDebug implements fuse.RawFileSystem.
func (*Dir) SetDebug(bool) {}

// Init implements fuse.RawFileSystem.
func (*Dir) Init(*fuse.Server) {}

// OnUnmount implements fuse.RawFileSystem.
func (*Dir) OnUnmount() {}

// StatFs implements fuse.RawFileSystem.
func (d *Dir) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var fs unix.Statfs_t
	if err := fstatfs(d.root, &fs); err != nil {
		return status(err)
	}
	if q := d.quota; q != nil {
		bytes, inodes := q.left()
		unit := uint64(max(fs.Frsize, 1))
		fs.Blocks, fs.Files = uint64(q.size)/unit, uint64(q.inodes)
		fs.Bavail = min(fs.Bavail, uint64(bytes)/unit)
		fs.Bfree, fs.Ffree = fs.Bavail, min(fs.Ffree, uint64(inodes))
	}
	*out = fuse.StatfsOut{
		Blocks: fs.Blocks, Bfree: fs.Bfree, Bavail: fs.Bavail, Files: fs.Files, Ffree: fs.Ffree,
		Bsize: uint32(fs.Bsize), NameLen: uint32(fs.Namelen), Frsize: uint32(fs.Frsize),
	}
	return fuse.OK
}

// status is what the guest is told of an error. ENOSYS has a meaning of its own
// to it: not to ask again.
func status(err error) fuse.Status {
	errno, ok := err.(unix.Errno)
	switch {
	case err == nil:
		return fuse.OK
	case !ok:
		return fuse.EIO
	case errno == unix.ENOSYS:
		return fuse.Status(unix.EOPNOTSUPP)
	}
	return fuse.Status(errno)
}

// writable refuses what would change a share that is read-only.
func (d *Dir) writable() fuse.Status {
	if d.readOnly {
		return fuse.EROFS
	}
	return fuse.OK
}

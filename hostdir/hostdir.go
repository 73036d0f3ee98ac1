// Package hostdir serves a host directory as a FUSE file system. It decides what a
// guest may do there, and keeps the guest inside.
//
// A guest names things in two ways: by the number of a node that it was given, and by
// one path component below a node. So whatever it sends, the kernel looks up one
// component below an open directory, and never follows a link. No path is resolved in
// which a link, a ".." or a concurrent rename could lead elsewhere.
//
//	guest: LOOKUP(node 7, "name")     here: fstatat, openat2(fd of 7, "name", O_PATH|O_NOFOLLOW)
//
// A node is an O_PATH descriptor, which keeps its inode whatever happens to its name.
// Only regular files and directories are opened for more, and only through the
// descriptor (/proc/self/fd), not by name.
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
	// HostOwner makes the guest see and set the host's modes only: no override is read
	// or written.
	HostOwner bool
	// Quota bounds what the guest adds; nil means no bound.
	Quota *Quota
	// Rate is how many bytes per second the guest may read and write; 0 means no bound.
	Rate uint64
	// Owner is the guest's owner of files of the user that runs this process.
	Owner fuse.Owner
	// Files is how many descriptors the directory may hold open: one for each file that
	// the guest remembers, and one for each that it has open. 0 means DefaultFiles.
	Files int
	Tasks task.Owner // of the goroutines
	// Held has the directory under its path; nil resolves the path.
	Held *hostfile.Set
}

// DefaultFiles is a bound that suits the usual limit of descriptors.
const DefaultFiles = 100_000

// timeout is how long the guest may cache names and attributes, so a change by the host
// may take this long to be seen. Opening a file always asks.
const timeout = time.Second

// Dir is a directory shown to one guest. Its methods are those of fuse.RawFileSystem
// and a few more. They may be called on any goroutine, several at once, except Reset,
// Save, Load and Close, which must be called alone.
type Dir struct {
	root     int // O_PATH
	proc     int // /proc/self/fd, O_PATH
	dev      uint64
	rootKey  key
	path     string
	readOnly bool
	// hostOwner: see Options. noXattr: the file system has no user attributes.
	hostOwner, noXattr bool
	noOpenat2          bool // then mount is the ID of the root's mount
	mount              int
	specials           atomic.Bool // a file with special bits for the guest has been seen
	local              bool        // the file system is local to this host
	memory             bool        // the file system has no medium
	owner              owner
	most               int // descriptors

	quota  *Quota
	bucket *rate.Bucket // of the rate; nil means no bound
	bell   bell
	syncs  syncs

	closing task.Group   // closes what a guest had before a reset
	leaving atomic.Int64 // descriptors of that which are still open

	mu       sync.Mutex
	nodes    map[uint64]*node   // guarded by mu
	keys     map[key]*node      // guarded by mu; the same nodes, by inode
	handles  map[uint64]*handle // guarded by mu
	last     uint64             // guarded by mu; the last number given to a node or handle
	open     int                // guarded by mu; descriptors of nodes and handles
	dirs     int                // guarded by mu; handles of directories
	memories int                // guarded by mu; nodes that have a memory
}

var _ fuse.RawFileSystem = (*Dir)(nil)

// Open opens the directory at path.
func Open(path string, o Options) (*Dir, error) {
	root, err := o.Held.OpenFD(path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		err = errors.Unwrap(err) // the path is in the message below
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

// advice returns what to do about an error of opening a directory.
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

// localTypes are file systems that need no other host or process.
var localTypes = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
	0x2fc12fc1, // ZFS, which is not in the kernel's sources
	0xca451a4e, // bcachefs
}

// Quick reports whether requests that need no file data are answered at once, or as
// soon as this host's disk answers.
func (d *Dir) Quick() bool { return d.local }

// Close closes all descriptors. No method may be called afterwards.
func (d *Dir) Close() error {
	d.drop()
	d.closing.Wait()
	if d.proc >= 0 {
		unix.Close(d.proc)
	}
	return unix.Close(d.root)
}

// Reset forgets all nodes and handles, as for a guest that starts again.
func (d *Dir) Reset() {
	d.drop()
	d.mu.Lock()
	defer d.mu.Unlock()
	root := &node{id: fuse.FUSE_ROOT_ID, fd: d.root, key: d.rootKey, kind: unix.S_IFDIR, lookups: 1}
	d.nodes, d.keys, d.handles = map[uint64]*node{root.id: root}, map[key]*node{}, map[uint64]*handle{}
	d.last, d.open, d.dirs, d.memories = root.id, 0, 0, 0
}

// drop closes all descriptors except the root's in the background: there may be a
// million, and a vCPU that resets its device waits for drop.
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

// status converts an error for the guest. ENOSYS is replaced: it would tell the guest
// not to ask again.
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

// writable refuses changes to a read-only share.
func (d *Dir) writable() fuse.Status {
	if d.readOnly {
		return fuse.EROFS
	}
	return fuse.OK
}

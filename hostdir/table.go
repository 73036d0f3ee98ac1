package hostdir

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A node is an inode that the guest knows by a number. Numbers are not reused, so they
// need no generation.
type node struct {
	id   uint64
	key  key
	kind uint32 // S_IFMT of its mode: an inode keeps it
	fd   int    // O_PATH; -1: it was gone when the state was loaded

	// Guarded by Dir.mu.
	lookups uint64    // how often the guest was told of it, minus how often it forgot it
	memory  *override // the override where there can be no attribute; such a node stays when it is forgotten
	users   int       // calls that use fd
	seen    stamp     // when the guest last opened it
}

// A key identifies an inode. While a descriptor holds the inode, no other gets its
// number.
type key struct{ dev, ino uint64 }

// A handle is a file or directory that the guest has opened.
type handle struct {
	id    uint64
	fd    int // -1: it was gone when the state was loaded
	flags int // O_ACCMODE and other relevant flags
	dir   *stream
	users int  // guarded by Dir.mu; calls that use fd
	ended bool // guarded by Dir.mu; released
}

// use returns a node that the guest names. done must follow.
func (d *Dir) use(id uint64) (*node, fuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[id]
	if n == nil || n.fd < 0 {
		return nil, fuse.Status(unix.ESTALE)
	}
	n.users++
	return n, fuse.OK
}

// useDir is use for a directory.
func (d *Dir) useDir(id uint64) (*node, fuse.Status) {
	n, s := d.use(id)
	if s.Ok() && n.kind != unix.S_IFDIR {
		d.done(n)
		return nil, fuse.ENOTDIR
	}
	return n, s
}

// done ends a use.
func (d *Dir) done(n *node) {
	d.mu.Lock()
	n.users--
	fd := d.loose(n)
	d.mu.Unlock()
	d.unrefer(fd)
}

// loose returns the descriptor to close if the node is no longer used or known, or -1.
// The caller holds mu.
func (d *Dir) loose(n *node) int {
	if n.users > 0 || n.lookups > 0 || n.fd < 0 || n.memory != nil {
		return -1
	}
	fd := n.fd
	n.fd = -1
	d.open--
	return fd
}

// known returns a node by its inode, or nil. It counts another lookup and a use; done
// must follow.
func (d *Dir) known(k key) *node {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.keys[k]
	if n != nil {
		d.told(n)
	}
	return n
}

// told counts a lookup and a use of a node. The caller holds mu.
func (d *Dir) told(n *node) {
	if n.lookups == 0 {
		d.nodes[n.id] = n // it was kept for its memory
	}
	n.lookups++
	n.users++
}

// add makes a node from a descriptor, or finds the existing one. It takes over the
// descriptor. done must follow.
func (d *Dir) add(fd int, st *unix.Stat_t) (*node, fuse.Status) {
	k := key{st.Dev, st.Ino}
	d.mu.Lock()
	n := d.keys[k]
	s := fuse.OK
	switch {
	case n != nil:
		d.told(n)
	case d.full():
		s = fuse.Status(unix.ENFILE)
	default:
		d.last++
		n = &node{id: d.last, key: k, kind: st.Mode & unix.S_IFMT, fd: fd, lookups: 1, users: 1}
		d.nodes[n.id], d.keys[k] = n, n
		d.open++
		d.refer(k)
		fd = -1
	}
	d.mu.Unlock()
	closeFD(fd)
	return n, s
}

// full reports whether no more descriptors may be opened. The caller holds mu.
func (d *Dir) full() bool { return d.open+int(d.leaving.Load()) >= d.most }

// scarce reports whether half of all descriptors are in use.
func (d *Dir) scarce() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open+int(d.leaving.Load()) >= d.most/2
}

// Forget implements fuse.RawFileSystem. Unknown nodes are ignored, and a count that is
// too high forgets the node.
func (d *Dir) Forget(id, times uint64) {
	if id == fuse.FUSE_ROOT_ID {
		return
	}
	d.mu.Lock()
	fd := -1
	if n := d.nodes[id]; n != nil {
		if n.lookups -= min(times, n.lookups); n.lookups == 0 {
			fd = d.forgotten(n)
		}
	}
	d.mu.Unlock()
	d.unrefer(fd)
}

// forgotten takes a node out of the tables, and returns the descriptor to close, or -1.
// A node with a memory stays known by its inode while the inode has a name. The caller
// holds mu.
func (d *Dir) forgotten(n *node) int {
	delete(d.nodes, n.id)
	var st unix.Stat_t
	if n.memory != nil && fstat(n.fd, &st) == nil && st.Nlink > 0 {
		return -1
	}
	d.forgetMemory(n)
	if d.keys[n.key] == n {
		delete(d.keys, n.key)
	}
	return d.loose(n)
}

// addHandle makes a handle from a descriptor, which it takes over.
func (d *Dir) addHandle(fd, flags int, dir *stream) (uint64, fuse.Status) {
	var st unix.Stat_t
	if d.quota != nil {
		if err := fstat(fd, &st); err != nil {
			unix.Close(fd)
			return 0, status(err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full() || dir != nil && d.dirs >= maxDirs {
		unix.Close(fd)
		return 0, fuse.Status(unix.ENFILE)
	}
	d.last++
	d.handles[d.last] = &handle{id: d.last, fd: fd, flags: flags, dir: dir}
	d.open++
	d.refer(key{st.Dev, st.Ino})
	if dir != nil {
		d.dirs++
	}
	return d.last, fuse.OK
}

// useHandle returns a handle that the guest names, for a directory or a file.
// doneHandle must follow.
func (d *Dir) useHandle(id uint64, dir bool) (*handle, fuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.handles[id]
	switch {
	case h == nil || (h.dir != nil) != dir:
		return nil, fuse.EBADF
	case h.fd < 0:
		return nil, fuse.Status(unix.ESTALE)
	}
	h.users++
	return h, fuse.OK
}

// doneHandle ends a useHandle.
func (d *Dir) doneHandle(h *handle) {
	d.mu.Lock()
	h.users--
	fd := d.looseHandle(h)
	d.mu.Unlock()
	d.unrefer(fd)
}

// looseHandle is loose for handles.
func (d *Dir) looseHandle(h *handle) int {
	if h.users > 0 || !h.ended || h.fd < 0 {
		return -1
	}
	fd := h.fd
	h.fd = -1
	d.open--
	return fd
}

// release ends a handle; a call that still uses it continues.
func (d *Dir) release(id uint64, dir bool) {
	d.mu.Lock()
	fd := -1
	if h := d.handles[id]; h != nil && (h.dir != nil) == dir {
		delete(d.handles, id)
		h.ended = true
		if dir {
			d.dirs--
		}
		fd = d.looseHandle(h)
	}
	d.mu.Unlock()
	d.unrefer(fd)
}

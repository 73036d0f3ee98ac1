package hostdir

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// state is what a guest knows of the directory, so that it can continue elsewhere:
// numbers, and the paths below the root where to find what they stand for. What has no
// path any more, because it was deleted or moved out, is not found again: the guest
// keeps the number and gets ESTALE.
type state struct {
	Last    uint64
	Owner   *override     `json:",omitempty"` // of the root, if it has no attribute
	Nodes   []nodeState   `json:",omitempty"` // without the root
	Handles []handleState `json:",omitempty"`
}

type nodeState struct {
	ID      uint64
	Path    []byte `json:",omitempty"` // nil: no path
	Kind    uint32
	Lookups uint64
	Owner   *override `json:",omitempty"` // its memory
}

type handleState struct {
	ID    uint64
	Path  []byte `json:",omitempty"` // nil: no path
	Root  bool   `json:",omitempty"` // it is the root itself
	Flags int
	Dir   bool `json:",omitempty"`
}

// Save returns the state as JSON. No other call may be running.
func (d *Dir) Save() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	root, err := os.Readlink(procPath(d.root))
	if err != nil {
		return nil, fmt.Errorf("share %s: %w", d.path, err)
	}
	s := state{Last: d.last, Owner: d.nodes[fuse.FUSE_ROOT_ID].memory}
	save := func(n *node) {
		s.Nodes = append(s.Nodes, nodeState{n.id, d.pathOf(n.fd, root), n.kind, n.lookups, n.memory})
	}
	for _, n := range d.nodes {
		if n.id != fuse.FUSE_ROOT_ID {
			save(n)
		}
	}
	for _, n := range d.keys {
		if n.lookups == 0 { // kept for its memory
			save(n)
		}
	}
	for _, h := range d.handles {
		saved := handleState{ID: h.id, Flags: h.flags, Dir: h.dir != nil}
		if saved.Root = saved.Dir && d.isRoot(h.fd); !saved.Root {
			saved.Path = d.pathOf(h.fd, root)
		}
		s.Handles = append(s.Handles, saved)
	}
	slices.SortFunc(s.Nodes, func(a, b nodeState) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Handles, func(a, b handleState) int { return cmp.Compare(a.ID, b.ID) })
	return json.Marshal(s)
}

func (d *Dir) isRoot(fd int) bool {
	var a, b unix.Stat_t
	return fd >= 0 && fstat(fd, &a) == nil && fstat(d.root, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// pathOf returns the path below the root of a descriptor's inode, or nil if it has
// none.
func (d *Dir) pathOf(fd int, root string) []byte {
	if fd < 0 {
		return nil
	}
	full, err := os.Readlink(procPath(fd))
	if err != nil {
		return nil
	}
	path, ok := strings.CutPrefix(full, strings.TrimSuffix(root, "/")+"/")
	if !ok || path == "" {
		return nil
	}
	again, err := d.handleAt(d.root, path)
	if err != nil {
		return nil
	}
	defer unix.Close(again)
	var a, b unix.Stat_t
	if fstat(fd, &a) != nil || fstat(again, &b) != nil || a.Dev != b.Dev || a.Ino != b.Ino {
		return nil // it was deleted, and another inode may have that name
	}
	return []byte(path)
}

// Load replaces the state. The bytes are untrusted: paths that lead out of the
// directory count as not found.
func (d *Dir) Load(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("share %s: the state: %w", d.path, err)
	}
	if err := d.check(&s); err != nil {
		return fmt.Errorf("share %s: the state: %w", d.path, err)
	}
	d.Reset()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = s.Last
	if d.nodes[fuse.FUSE_ROOT_ID].memory = s.Owner; s.Owner != nil {
		d.memories++
	}
	for _, n := range s.Nodes {
		d.loadNode(n)
	}
	for _, h := range s.Handles {
		d.loadHandle(h)
	}
	return nil
}

// check refuses a state that Save could not have written.
func (d *Dir) check(s *state) error {
	seen := map[uint64]bool{fuse.FUSE_ROOT_ID: true}
	take := func(id uint64) bool {
		ok := id <= s.Last && id != 0 && !seen[id]
		seen[id] = true
		return ok
	}
	switch {
	case s.Last < fuse.FUSE_ROOT_ID || s.Last > 1<<62:
		return fmt.Errorf("no number of a node: %d", s.Last)
	case len(s.Nodes)+len(s.Handles) > d.most:
		return fmt.Errorf("%d files, more than %d", len(s.Nodes)+len(s.Handles), d.most)
	}
	dirs, memories := 0, 0
	if s.Owner != nil {
		memories++
	}
	for _, n := range s.Nodes {
		if !take(n.ID) || n.Lookups == 0 && n.Owner == nil || !n.Owner.valid() {
			return errors.New("nodes that make no sense")
		}
		if n.Owner != nil {
			memories++
		}
	}
	for _, h := range s.Handles {
		if !take(h.ID) || h.Root && !h.Dir {
			return errors.New("handles that make no sense")
		}
		if h.Dir {
			dirs++
		}
	}
	if !s.Owner.valid() || memories > d.maxMemories() {
		return fmt.Errorf("owners of %d files, more than %d, or none that make sense", memories, d.maxMemories())
	}
	if dirs > maxDirs {
		return fmt.Errorf("%d directories are open, more than %d", dirs, maxDirs)
	}
	return nil
}

// find opens a path from a state.
func (d *Dir) find(path []byte) (fd int, st unix.Stat_t) {
	if len(path) == 0 {
		return -1, st
	}
	fd, err := d.handleAt(d.root, string(path))
	if err != nil {
		return -1, st
	}
	if err := fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st
	}
	return fd, st
}

// loadNode makes a node. The caller holds mu.
func (d *Dir) loadNode(s nodeState) {
	fd, st := d.find(s.Path)
	if fd >= 0 && st.Mode&unix.S_IFMT != s.Kind {
		unix.Close(fd)
		fd = -1
	}
	n := &node{id: s.ID, kind: s.Kind, fd: fd, lookups: s.Lookups}
	if s.Lookups > 0 {
		d.nodes[n.id] = n
	}
	if fd < 0 {
		return
	}
	n.key = key{st.Dev, st.Ino}
	switch {
	case d.keys[n.key] == nil:
		d.keys[n.key] = n
	case s.Lookups == 0: // it would not be in any table
		unix.Close(fd)
		return
	}
	d.open++
	d.refer(n.key)
	if n.memory = s.Owner; n.memory != nil {
		d.memories++
	}
}

// loadHandle makes a handle. The caller holds mu.
func (d *Dir) loadHandle(s handleState) {
	h := &handle{id: s.ID, fd: -1, flags: s.Flags & openFlags &^ unix.O_TRUNC}
	if s.Dir {
		h.dir, h.flags = new(stream), unix.O_RDONLY|unix.O_DIRECTORY
		d.dirs++
	}
	d.handles[h.id] = h
	if s.Root {
		if fd, err := d.reopen(d.root, h.flags); err == nil {
			h.fd = fd
			d.open++
			d.refer(d.rootKey)
		}
		return
	}
	path, st := d.find(s.Path)
	if path < 0 {
		return
	}
	defer unix.Close(path)
	flags, status := d.flagsOf(uint32(h.flags))
	switch kind := st.Mode & unix.S_IFMT; {
	case !status.Ok() || s.Dir != (kind == unix.S_IFDIR):
		return
	case s.Dir:
		h.fd, _ = d.reopen(path, h.flags)
	default:
		h.fd, _ = d.openFile(&node{fd: path, kind: kind}, flags)
	}
	if h.fd >= 0 {
		d.open++
		d.refer(key{st.Dev, st.Ino})
	}
}

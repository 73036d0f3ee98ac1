package hostdir

import (
	"os"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// An owner is the user whose files are the guest's: the one that runs this process.
type owner struct {
	uid    uint32
	groups map[uint32]bool
	guest  fuse.Owner // the guest's name for that user
}

func invoker(guest fuse.Owner) owner {
	o := owner{uint32(os.Geteuid()), map[uint32]bool{uint32(os.Getegid()): true}, guest}
	ids, _ := os.Getgroups() // on error fewer files look like the guest's
	for _, id := range ids {
		o.groups[uint32(id)] = true
	}
	return o
}

// nobody is shown as the owner of other users' files.
const nobody = 65534

// special are the bits that give a program the rights of its owner or group. On the
// host these would be this user's rights, so a guest neither sees nor sets the host's
// bits on files.
const special = unix.S_ISUID | unix.S_ISGID

// plain returns what the guest is shown of an inode without an override.
func (o *owner) plain(st *unix.Stat_t) override {
	shown := override{nobody, nobody, st.Mode & permissions}
	if st.Uid == o.uid {
		shown.UID = o.guest.Uid
	}
	if o.groups[st.Gid] {
		shown.GID = o.guest.Gid
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		shown.Mode &^= special
	}
	return shown
}

// shown returns what the guest is shown of an inode. It ignores the override of a file
// of another host user: anyone who can write to that file could turn it into a
// set-user-ID program of the guest's root.
func (d *Dir) shown(n *node, st *unix.Stat_t) override {
	if d.hostOwner || st.Uid != d.owner.uid {
		return d.owner.plain(st)
	}
	o, ok := d.recorded(n)
	if !ok {
		return d.owner.plain(st)
	}
	if o.Mode&special != 0 && n.kind != unix.S_IFDIR {
		d.specials.Store(true)
	}
	return o
}

// recorded returns the override of a node: from the attribute, or from memory where
// there can be no attribute.
func (d *Dir) recorded(n *node) (override, bool) {
	if !d.noXattr && bears(n.kind) {
		var value [maxOverride]byte
		if size, err := readOverride(n.fd, &value); err == nil {
			return parseOverride(value[:size], n.kind)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n.memory == nil {
		return override{}, false
	}
	return *n.memory, true
}

// bears reports whether inodes of a kind can have user attributes.
func bears(kind uint32) bool { return kind == unix.S_IFREG || kind == unix.S_IFDIR }

// hostMode returns the mode for the host's inode when the guest asks for the mode asked
// and the inode has the mode have. This user can read and write it in any case, other
// host users may write to it only if they could before, and no bit that gives rights is
// set.
func hostMode(kind, asked, have uint32) uint32 {
	mode := asked&0o755 | asked&have&0o022 | 0o600
	if kind == unix.S_IFDIR {
		mode |= asked&have&0o7000 | 0o100
	}
	return mode
}

// settle makes the guest see an inode of this user as want: through the host's mode if
// that is enough, else through an override. fresh means that it has no override yet.
// The caller uses the node.
func (d *Dir) settle(n *node, want override, fresh bool) error {
	var st unix.Stat_t
	if err := fstat(n.fd, &st); err != nil {
		return err
	}
	if st.Uid != d.owner.uid {
		return unix.EPERM
	}
	had := st.Mode & permissions
	mode := hostMode(n.kind, want.Mode, had)
	if n.kind == unix.S_IFLNK {
		mode = had // links have no mode
	}
	if mode != had {
		if err := d.chmod(n.fd, mode); err != nil {
			return err
		}
		st.Mode = n.kind | mode
	}
	plain := d.owner.plain(&st) == want
	if plain && fresh {
		return nil
	}
	err := d.record(n, want, plain)
	if err != nil && mode != had {
		d.chmod(n.fd, had) // restore it
	}
	return err
}

func (d *Dir) chmod(fd int, mode uint32) error {
	// The /proc entry leads to the inode itself, and to no further link.
	return again(func() error { return unix.Fchmodat(d.proc, strconv.Itoa(fd), mode, 0) })
}

// record stores an override, or removes an existing one if the host's inode says the
// same.
func (d *Dir) record(n *node, want override, plain bool) error {
	err := error(unix.EOPNOTSUPP)
	if !d.noXattr && bears(n.kind) {
		if plain {
			err = again(func() error { return unix.Removexattr(procPath(n.fd), overrideXattr) })
		} else {
			err = again(func() error { return unix.Setxattr(procPath(n.fd), overrideXattr, []byte(want.String()), 0) })
		}
	}
	switch {
	case plain && (err == unix.ENODATA || err == unix.EOPNOTSUPP):
		err = nil
	case err == unix.EOPNOTSUPP:
		return d.remember(n, want)
	}
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.forgetMemory(n)
	}
	return err
}

// remember keeps an override in memory, and the node with it, so that the inode keeps
// its number. A quarter of all descriptors may be used for that.
func (d *Dir) remember(n *node, want override) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	lost := n.lookups == 0 && d.keys[n.key] != n // the guest has forgotten it
	if lost || n.memory == nil && d.memories >= d.maxMemories() {
		return unix.EPERM // as where users cannot give files away
	}
	if n.memory == nil {
		d.memories++
	}
	n.memory = &want
	return nil
}

// maxMemories is how many nodes may have a memory.
func (d *Dir) maxMemories() int { return d.most / 4 }

// forgetMemory undoes remember. The caller holds mu.
func (d *Dir) forgetMemory(n *node) {
	if n.memory == nil {
		return
	}
	n.memory = nil
	d.memories--
	if n.lookups == 0 && d.keys[n.key] == n { // it was kept for its memory
		delete(d.keys, n.key)
	}
}

// newborn returns what the guest is shown of a new inode in a directory: it belongs to
// its creator, but to the directory's group if that is set-group-ID.
func (d *Dir) newborn(parent *node, who fuse.Owner, kind, bits uint32) override {
	o := override{who.Uid, who.Gid, bits & permissions}
	if who.Uid == invalidID || who.Gid == invalidID { // unmapped ID of an idmapped mount
		o.UID, o.GID = d.owner.guest.Uid, d.owner.guest.Gid
	}
	var st unix.Stat_t
	if fstat(parent.fd, &st) != nil {
		return o
	}
	dir := d.shown(parent, &st)
	switch {
	case dir.Mode&unix.S_ISGID == 0:
	case kind == unix.S_IFDIR:
		o.GID, o.Mode = dir.GID, o.Mode|unix.S_ISGID
	default:
		if o.GID != dir.GID && o.UID != 0 && o.Mode&unix.S_IXGRP != 0 {
			o.Mode &^= unix.S_ISGID // the creator is not in that group
		}
		o.GID = dir.GID
	}
	return o
}

// A birth is a new inode that the guest makes.
type birth struct {
	parent *node
	name   string // "": no name
	who    fuse.Owner
	kind   uint32
	bits   uint32 // of the mode that the guest wants
}

// birthMode returns the mode with which the host makes it: never more than its final
// mode.
func (d *Dir) birthMode(b *birth) uint32 {
	if d.hostOwner {
		return mode(b.kind, b.bits)
	}
	return hostMode(b.kind, b.bits, 0)
}

// born tells the guest of a new inode, with its owner and mode set. It takes over an
// O_PATH descriptor.
func (d *Dir) born(b *birth, fd int, out *fuse.EntryOut) fuse.Status {
	n, st, s := d.addPath(fd)
	if !s.Ok() {
		return s
	}
	defer d.done(n)
	if err := d.adopt(b, n, st); err != nil {
		d.unmake(b, st)
		d.Forget(n.id, 1)
		return status(err)
	}
	d.entry(n, st, out)
	return fuse.OK
}

// adopt gives a new inode its final owner and mode: this process's umask is not the
// guest's. It updates st.
func (d *Dir) adopt(b *birth, n *node, st *unix.Stat_t) error {
	if n.kind != b.kind || st.Uid != d.owner.uid {
		return nil // a host program has replaced it, or its file system sets all owners
	}
	if d.hostOwner {
		bits := mode(b.kind, b.bits) | st.Mode&unix.S_ISGID
		if n.kind == unix.S_IFLNK || bits == st.Mode&permissions {
			return nil
		}
		if err := d.chmod(n.fd, bits); err != nil {
			return err
		}
	} else if err := d.settle(n, d.newborn(b.parent, b.who, b.kind, b.bits), true); err != nil && err != unix.EPERM {
		return err // on EPERM it stays this user's
	}
	return fstat(n.fd, st)
}

// unmake removes a new inode that could not be completed, if it still has its name.
func (d *Dir) unmake(b *birth, st *unix.Stat_t) {
	var now unix.Stat_t
	if b.name == "" || fstatat(b.parent.fd, b.name, &now) != nil || now.Dev != st.Dev || now.Ino != st.Ino {
		return
	}
	flags := 0
	if b.kind == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	again(func() error { return unix.Unlinkat(b.parent.fd, b.name, flags) })
}

// dropSpecial clears the set-user-ID and set-group-ID bits that a file has for the
// guest, when a user without privilege changes its content.
func (d *Dir) dropSpecial(n *node) error {
	if d.hostOwner || n.kind != unix.S_IFREG || !d.specials.Load() {
		return nil
	}
	var st unix.Stat_t
	if err := fstat(n.fd, &st); err != nil {
		return err
	}
	now := d.shown(n, &st)
	if without(now.Mode) == now.Mode {
		return nil
	}
	now.Mode = without(now.Mode)
	return d.settle(n, now, false)
}

// dropSpecialOf is dropSpecial for a descriptor.
func (d *Dir) dropSpecialOf(fd int) error {
	if !d.specials.Load() {
		return nil
	}
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return err
	}
	d.mu.Lock()
	n := d.keys[key{st.Dev, st.Ino}]
	if n != nil {
		n.users++
	}
	d.mu.Unlock()
	if n == nil { // the guest has forgotten it
		return d.dropSpecial(&node{fd: fd, kind: unix.S_IFREG})
	}
	defer d.done(n)
	return d.dropSpecial(n)
}

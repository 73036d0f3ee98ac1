package hostdir

import (
	"os"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// An owner is whose files are the guest's: the user who runs this.
type owner struct {
	uid    uint32
	groups map[uint32]bool
	guest  fuse.Owner // who that is in the guest
}

func invoker(guest fuse.Owner) owner {
	o := owner{uint32(os.Geteuid()), map[uint32]bool{uint32(os.Getegid()): true}, guest}
	ids, _ := os.Getgroups() // without them fewer files look like the guest's
	for _, id := range ids {
		o.groups[uint32(id)] = true
	}
	return o
}

// nobody is who owns what belongs to others.
const nobody = 65534

// special are the bits by which a program gets rights of its owner. On a host
// they would be this user's, so a guest neither sees nor sets the host's on
// files.
const special = unix.S_ISUID | unix.S_ISGID

// plain is what the guest is shown of an inode that has no override.
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

// shown is what the guest is shown of an inode. Of a file that is another user's
// of the host nothing is believed: who can write to it could make a program of
// root's of it.
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

// recorded returns the override of a node: the attribute's, or where there can
// be none, what is remembered.
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

// bears says whether inodes of a kind can have user attributes.
func bears(kind uint32) bool { return kind == unix.S_IFREG || kind == unix.S_IFDIR }

// hostMode is the mode that the host's inode gets, of which the guest says asked
// and that has had the mode have: this user can read and write it whatever the
// guest says, others of the host may write to it only if they could before, and
// no bit that gives rights is set.
func hostMode(kind, asked, have uint32) uint32 {
	mode := asked&0o755 | asked&have&0o022 | 0o600
	if kind == unix.S_IFDIR {
		mode |= asked&have&0o7000 | 0o100
	}
	return mode
}

// settle has the guest be shown an inode of this user's as want: by the host's
// mode where that says all, else by an override. fresh: it has none yet. The caller
// uses the node.
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
		mode = had // it has none
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
		d.chmod(n.fd, had) // it is as it was
	}
	return err
}

func (d *Dir) chmod(fd int, mode uint32) error {
	// The entry of /proc leads to the inode itself, and to no further link.
	return again(func() error { return unix.Fchmodat(d.proc, strconv.Itoa(fd), mode, 0) })
}

// record keeps an override, or removes what there is of one if the host's inode
// says the same.
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

// remember keeps an override in memory, and the node with it, so that the inode
// stays what it is. Of all descriptors a quarter is for that.
func (d *Dir) remember(n *node, want override) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	lost := n.lookups == 0 && d.keys[n.key] != n // the guest has forgotten it
	if lost || n.memory == nil && d.memories >= d.maxMemories() {
		return unix.EPERM // as where no user can give a file away
	}
	if n.memory == nil {
		d.memories++
	}
	n.memory = &want
	return nil
}

// maxMemories is how many nodes may have one.
func (d *Dir) maxMemories() int { return d.most / 4 }

// forgetMemory is the reverse. The caller holds mu.
func (d *Dir) forgetMemory(n *node) {
	if n.memory == nil {
		return
	}
	n.memory = nil
	d.memories--
	if n.lookups == 0 && d.keys[n.key] == n { // it was kept for that
		delete(d.keys, n.key)
	}
}

// newborn is what the guest is to be shown of what somebody makes in a directory:
// it is his, or of the directory's group if that is set-group-ID.
func (d *Dir) newborn(parent *node, who fuse.Owner, kind, bits uint32) override {
	o := override{who.Uid, who.Gid, bits & permissions}
	if who.Uid == invalidID || who.Gid == invalidID { // of an idmapped mount, nobody that there is
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
			o.Mode &^= unix.S_ISGID // to run with the rights of a group that one is not of
		}
		o.GID = dir.GID
	}
	return o
}

// A birth is what somebody in the guest makes.
type birth struct {
	parent *node
	name   string // "": it has none
	who    fuse.Owner
	kind   uint32
	bits   uint32 // of the mode that he wants
}

// mode is with what mode the host makes it: never more than it gets in the end.
func (d *Dir) birthMode(b *birth) uint32 {
	if d.hostOwner {
		return mode(b.kind, b.bits)
	}
	return hostMode(b.kind, b.bits, 0)
}

// born tells the guest of what was made, as it shall see it. It takes an O_PATH
// descriptor.
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

// adopt gives what was made the owner and the mode that it shall have: this
// process's umask is not the guest's. It brings st up to date.
func (d *Dir) adopt(b *birth, n *node, st *unix.Stat_t) error {
	if n.kind != b.kind || st.Uid != d.owner.uid {
		return nil // a host's program was here, or its file system says whose all is
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
		return err // EPERM: it stays this user's
	}
	return fstat(n.fd, st)
}

// unmake takes back what could not be made whole, if it still has its name.
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

// dropSpecial takes the set-user-ID and set-group-ID bits away that a file has for
// the guest, when somebody without privilege has changed its content.
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

// dropSpecialOf is dropSpecial of a descriptor.
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

package hostdir

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// overrideXattr holds whose a file is and what its mode is, for a guest: this
// user could give it to nobody. Podman's storage and libkrun use the same.
const overrideXattr = "user.containers.override_stat"

// maxOverride is longer than any value that makes sense.
const maxOverride = 64

// permissions are the bits of a mode that are no kind.
const permissions = 0o7777

// An override is what a guest is shown of an inode in place of the host's.
type override struct{ UID, GID, Mode uint32 } // Mode: permissions

// invalidID is no user and no group: chown(2) has it for "as it is".
const invalidID = 1<<32 - 1

// parseOverride reads the attribute of an inode of a kind (S_IFMT):
//
//	uid:gid:mode[:type]
//
// Numbers are decimal, the mode octal. Some write the kind into the mode
// (0100644), some a word behind it (file, dir, symlink, pipe, socket,
// block-8-1, char-1-3). An attribute that says another kind than the inode's is
// not honoured: a file of the host must not become a device or a link.
func parseOverride(b []byte, kind uint32) (o override, ok bool) {
	if len(b) > maxOverride {
		return o, false
	}
	uid, b, more1 := bytes.Cut(b, colon)
	gid, b, more2 := bytes.Cut(b, colon)
	octal, word, typed := bytes.Cut(b, colon)
	var mode uint32
	ok = more1 && more2 && number(uid, 10, &o.UID) && number(gid, 10, &o.GID) && number(octal, 8, &mode) &&
		o.UID != invalidID && o.GID != invalidID && mode&^(unix.S_IFMT|permissions) == 0
	if k := mode & unix.S_IFMT; k != 0 && k != kind || typed && kindOf(string(word)) != kind {
		ok = false
	}
	o.Mode = mode & permissions
	return o, ok
}

var colon = []byte{':'}

// number reads digits, and nothing else.
func number(b []byte, base uint32, n *uint32) bool {
	v := uint64(0)
	for _, c := range b {
		if c < '0' || uint32(c-'0') >= base || v > invalidID {
			return false
		}
		v = v*uint64(base) + uint64(c-'0')
	}
	*n = uint32(v)
	return len(b) > 0 && v <= invalidID
}

// kindOf is the kind that a word stands for, of the two that can have attributes.
func kindOf(word string) uint32 {
	switch word {
	case "file":
		return unix.S_IFREG
	case "dir":
		return unix.S_IFDIR
	}
	return 0
}

// valid says whether an override could be somebody's; nil is none.
func (o *override) valid() bool {
	return o == nil || o.UID != invalidID && o.GID != invalidID && o.Mode&^permissions == 0
}

// String is the attribute, in the form that all its readers know.
func (o override) String() string {
	b := strconv.AppendUint(make([]byte, 0, maxOverride), uint64(o.UID), 10)
	b = strconv.AppendUint(append(b, ':'), uint64(o.GID), 10)
	return string(strconv.AppendUint(append(b, ':', '0'), uint64(o.Mode), 8))
}

// without is what is left of a mode when a file is written to or given to others
// by somebody without privilege: chown(2), write(2).
func without(mode uint32) uint32 {
	if mode&unix.S_IXGRP != 0 {
		mode &^= unix.S_ISGID
	}
	return mode &^ unix.S_ISUID
}

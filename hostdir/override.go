package hostdir

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// overrideXattr holds the owner and mode of a file for a guest, because this user
// cannot give files away. Podman's storage and libkrun use the same attribute.
const overrideXattr = "user.containers.override_stat"

// maxOverride is longer than any sensible value.
const maxOverride = 64

// permissions are the bits of a mode besides the file type.
const permissions = 0o7777

// An override is what a guest is shown of an inode instead of the host's owner and
// mode.
type override struct{ UID, GID, Mode uint32 } // Mode: permissions

// invalidID is not a user or group: for chown(2) it means "unchanged".
const invalidID = 1<<32 - 1

// parseOverride parses the attribute of an inode of a kind (S_IFMT):
//
//	uid:gid:mode[:type]
//
// Numbers are decimal, the mode is octal. Some programs write the kind into the mode
// (0100644), some as a word after it (file, dir, symlink, pipe, socket, block-8-1,
// char-1-3). An attribute with another kind than the inode's is ignored: a host file
// must not become a device or a link.
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

// number parses digits, and nothing else.
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

// kindOf returns the kind that a word stands for, one of the two that can have
// attributes, or 0.
func kindOf(word string) uint32 {
	switch word {
	case "file":
		return unix.S_IFREG
	case "dir":
		return unix.S_IFDIR
	}
	return 0
}

// valid reports whether an override is valid; nil, for none, is.
func (o *override) valid() bool {
	return o == nil || o.UID != invalidID && o.GID != invalidID && o.Mode&^permissions == 0
}

// String returns the attribute in the form that all its readers understand.
func (o override) String() string {
	b := strconv.AppendUint(make([]byte, 0, maxOverride), uint64(o.UID), 10)
	b = strconv.AppendUint(append(b, ':'), uint64(o.GID), 10)
	return string(strconv.AppendUint(append(b, ':', '0'), uint64(o.Mode), 8))
}

// without returns the mode that remains after a user without privilege writes to a file
// or changes its owner: chown(2), write(2).
func without(mode uint32) uint32 {
	if mode&unix.S_IXGRP != 0 {
		mode &^= unix.S_ISGID
	}
	return mode &^ unix.S_ISUID
}

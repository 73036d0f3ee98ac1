package fs

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func str(s string) []byte         { return []byte(s + "\x00") }
func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// rw is the beginning of READ, WRITE and READDIR.
func rw(handle, off uint64, size uint32) []byte {
	return join(numbers(handle, off), le.AppendUint32(nil, size), make([]byte, 20))
}

// sized is struct fuse_getxattr_in, or fuse_setxattr_in.
func sized(n uint32) []byte { return join(le.AppendUint32(nil, n), make([]byte, 4)) }

// requests are the guest's possible requests, with the expected answers.
var requests = []struct {
	name  string
	op    uint32
	node  uint64
	body  []byte
	room  int
	errno fuse.Status
	want  int // bytes behind the header
}{
	{"getattr", opGetattr, 9, make([]byte, 16), 120, 0, 104},
	{"getattr, more room", opGetattr, 9, make([]byte, 16), 1000, 0, 104},
	{"getattr, no room", opGetattr, 9, make([]byte, 16), 119, fuse.EINVAL, 0},
	{"getattr, short", opGetattr, 9, make([]byte, 15), 120, fuse.EINVAL, 0},
	{"getattr, long", opGetattr, 9, make([]byte, 17), 120, fuse.EINVAL, 0},
	{"getattr of go-fuse's node", opGetattr, ownNode, make([]byte, 16), 120, fuse.Status(unix.ESTALE), 0},
	{"lookup", opLookup, 1, str("name"), 144, 0, 128},
	{"lookup of nothing", opLookup, 1, nil, 144, fuse.EINVAL, 0},
	{"lookup without NUL", opLookup, 1, []byte("name"), 144, fuse.EINVAL, 0},
	{"lookup of two", opLookup, 1, join(str("a"), str("b")), 144, fuse.EINVAL, 0},
	{"lookup, long", opLookup, 1, str(strings.Repeat("x", maxString)), 144, fuse.EINVAL, 0},
	{"lookup of go-fuse's name", opLookup, 1, str(ownName), 144, fuse.ENOENT, 0},
	{"lookup of go-fuse's name elsewhere", opLookup, 2, str(ownName), 144, 0, 128},
	{"unlink of go-fuse's name", opUnlink, 1, str(ownName), 16, fuse.EPERM, 0},
	{"symlink", opSymlink, 1, join(str("name"), str("/text")), 144, 0, 128},
	{"symlink to nowhere", opSymlink, 1, str("name"), 144, fuse.EINVAL, 0},
	{"rename2", opRename2, 1, join(make([]byte, 16), str("a"), str("b")), 16, 0, 0},
	{"rename", opRename, 1, join(make([]byte, 8), str("a"), str("b")), 16, 0, 0},
	{"rename, one name", opRename2, 1, join(make([]byte, 16), str("a")), 16, fuse.EINVAL, 0},
	{"readlink", opReadlink, 1, nil, 4096 + 16, 0, 9},
	{"readlink, no room", opReadlink, 1, nil, 16 + 8, fuse.EIO, 0},
	{"readlink, no room at all", opReadlink, 1, nil, 16, fuse.EIO, 0},
	{"getxattr", opGetxattr, 1, join(sized(100), str("user.x")), 116, 0, 5},
	{"getxattr, size", opGetxattr, 1, join(sized(0), str("user.x")), 24, 0, 8},
	{"getxattr, short", opGetxattr, 1, join(sized(4), str("user.x")), 20, fuse.ERANGE, 0},
	{"getxattr, no room", opGetxattr, 1, join(sized(100), str("user.x")), 115, fuse.EINVAL, 0},
	{"getxattr, huge", opGetxattr, 1, join(sized(1<<32-1), str("user.x")), 16 + maxPayload, 0, 5},
	{"setxattr", opSetxattr, 1, join(sized(5), str("user.x"), []byte("value")), 16, 0, 0},
	{"setxattr, large", opSetxattr, 1, join(sized(maxPayload), str("user.x"), make([]byte, maxPayload)), 16, 0, 0},
	{"setxattr, too large", opSetxattr, 1, join(sized(maxPayload), str("user.x"), make([]byte, maxPayload+1)), 16, fuse.EINVAL, 0},
	{"setxattr, far too large", opSetxattr, 1, make([]byte, 100<<10), 16, fuse.Status(unix.E2BIG), 0},
	{"readdir", opReaddir, 1, rw(1, 0, 100), 116, 0, 96},
	{"readdir, large", opReaddir, 1, rw(1, 0, 1<<31), 16 + maxPayload, 0, maxPayload},
	{"readdir, no room", opReaddir, 1, rw(1, 0, 100), 115, fuse.EINVAL, 0},
	{"a bug", opReaddirplus, 1, rw(1, 0, 100), 116, fuse.EIO, 0},
	{"read", opRead, 1, rw(fakeHandle, 3, 1000), 1016, 0, 1000},
	{"read of nothing", opRead, 1, rw(fakeHandle, 3, 0), 16, 0, 0},
	{"read, more room", opRead, 1, rw(fakeHandle, 3, 1000), 2000, 0, 1000},
	{"read, no room", opRead, 1, rw(fakeHandle, 3, 1001), 1016, fuse.EINVAL, 0},
	{"read, largest", opRead, 1, rw(fakeHandle, 3, maxIO), 16 + maxIO, 0, maxIO},
	{"read, too large", opRead, 1, rw(fakeHandle, 3, maxIO+1), 17 + maxIO, fuse.EINVAL, 0},
	{"read, bad handle", opRead, 1, rw(0, 3, 1000), 1016, fuse.EBADF, 0},
	{"read, short", opRead, 1, make([]byte, ioIn-1), 1016, fuse.EINVAL, 0},
	{"write", opWrite, 1, join(rw(fakeHandle, 3, 5), []byte("bytes")), 24, 0, 8},
	{"write, largest", opWrite, 1, join(rw(fakeHandle, 3, maxIO), make([]byte, maxIO)), 24, 0, 8},
	{"write, bad handle", opWrite, 1, join(rw(0, 3, 5), []byte("bytes")), 24, fuse.EBADF, 0},
	{"write, fewer", opWrite, 1, join(rw(fakeHandle, 3, 6), []byte("bytes")), 24, fuse.EINVAL, 0},
	{"write, more", opWrite, 1, join(rw(fakeHandle, 3, 4), []byte("bytes")), 24, fuse.EINVAL, 0},
	{"write, short", opWrite, 1, make([]byte, ioIn-1), 24, fuse.EINVAL, 0},
	{"write, no room", opWrite, 1, join(rw(fakeHandle, 3, 5), []byte("bytes")), 23, fuse.EINVAL, 0},
	{"syncfs", opSyncfs, 1, make([]byte, 8), 16, 0, 0},
	{"init", opInit, 0, initBody(major, 38, 64), 80, 0, 64},
	{"init, of an old driver", opInit, 0, initBody(major, minMinor, 16), 80, 0, 64},
	{"init, longer", opInit, 0, initBody(major, 50, 100), 80, 0, 64},
	{"init, too old", opInit, 0, initBody(major, minMinor-1, 64), 80, fuse.Status(unix.EPROTO), 0},
	{"init, another version", opInit, 0, initBody(8, 0, 64), 80, fuse.Status(unix.EPROTO), 0},
	{"init, short", opInit, 0, initBody(major, 38, 15), 80, fuse.EINVAL, 0},
	{"init, no room", opInit, 0, initBody(major, 38, 64), 79, fuse.EINVAL, 0},
	{"destroy", opDestroy, 0, nil, 16, 0, 0},
	{"lock", 32, 1, make([]byte, 48), 16, fuse.ENOSYS, 0},
	{"access", 34, 1, make([]byte, 8), 16, fuse.ENOSYS, 0},
	{"ioctl", 39, 1, make([]byte, 32), 32, fuse.ENOSYS, 0},
	{"poll", 40, 1, make([]byte, 24), 32, fuse.ENOSYS, 0},
	{"statx", 52, 1, make([]byte, 24), 32, fuse.ENOSYS, 0},
	{"0", 0, 1, nil, 16, fuse.ENOSYS, 0},
	{"100", 100, 1, nil, 16, fuse.ENOSYS, 0},
	{"CUSE_INIT", 4096, 1, nil, 16, fuse.ENOSYS, 0},
	{"2^32-1", 1<<32 - 1, 1, nil, 16, fuse.ENOSYS, 0},
}

// TestRequests: the answers, however request and answer are cut into buffers.
func TestRequests(t *testing.T) {
	for i, test := range requests {
		for _, cuts := range [][]int{nil, {40}, {16}, {1, 2, 3, 50}, {16, 8}} {
			f := newFake()
			f.slow = (i+len(cuts))%2 == 0
			d := start(t, newDevice(t, f))
			got := d.do(ask(test.op, 77, test.node, test.body...), cuts, test.room, cuts)
			want := answerHeader{headerOut + test.want, test.errno, 77}
			if r := reply(got); r != want || len(got) != want.length {
				t.Errorf("%s, cut as %v: %d bytes, %+v, want %+v", test.name, cuts, len(got), r, want)
			}
			if bug := test.name == "a bug"; (d.dev.panics.Load() > 0) != bug {
				t.Errorf("%s: panicked", test.name)
			}
			d.stop()
		}
	}
}

package fs

import (
	"bytes"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"vmm/devices/virtio"
)

var (
	_ virtio.Device   = (*Device)(nil)
	_ virtio.Resetter = (*Device)(nil)
	_ virtio.Saver    = (*Device)(nil)
)

// TestSizes: the table of requests agrees with go-fuse's structures.
func TestSizes(t *testing.T) {
	size := func(v any) int { return int(reflect.TypeOf(v).Size()) }
	for _, test := range []struct {
		op      int
		in, out any
	}{
		{opLookup, nil, fuse.EntryOut{}}, {opGetattr, fuse.GetAttrIn{}, fuse.AttrOut{}}, {opSetattr, fuse.SetAttrIn{}, fuse.AttrOut{}},
		{opSymlink, nil, fuse.EntryOut{}}, {opMknod, fuse.MknodIn{}, fuse.EntryOut{}}, {opMkdir, fuse.MkdirIn{}, fuse.EntryOut{}},
		{opRename2, fuse.RenameIn{}, nil}, {opLink, fuse.LinkIn{}, fuse.EntryOut{}},
		{opOpen, fuse.OpenIn{}, fuse.OpenOut{}}, {opStatfs, nil, fuse.StatfsOut{}}, {opRelease, fuse.ReleaseIn{}, nil},
		{opFsync, fuse.FsyncIn{}, nil}, {opGetxattr, fuse.GetXAttrIn{}, fuse.GetXAttrOut{}}, {opListxattr, fuse.GetXAttrIn{}, fuse.GetXAttrOut{}},
		{opFlush, fuse.FlushIn{}, nil}, {opInit, fuse.InitIn{}, fuse.InitOut{}}, {opOpendir, fuse.OpenIn{}, fuse.OpenOut{}},
		{opReaddir, fuse.ReadIn{}, nil}, {opReaddirplus, fuse.ReadIn{}, nil}, {opReleasedir, fuse.ReleaseIn{}, nil}, {opFsyncdir, fuse.FsyncIn{}, nil},
		{opCreate, fuse.CreateIn{}, fuse.CreateOut{}}, {opTmpfile, fuse.CreateIn{}, fuse.CreateOut{}}, {opFallocate, fuse.FallocateIn{}, nil},
		{opLseek, fuse.LseekIn{}, fuse.LseekOut{}}, {opCopyFileRange, fuse.CopyFileRangeIn{}, fuse.WriteOut{}},
	} {
		in, out := 0, 0
		if test.in != nil {
			in = size(test.in) - headerIn
		}
		if test.out != nil {
			out = size(test.out)
		}
		if o := ops[test.op]; o.in != in || o.out != out {
			t.Errorf("opcode %d: %d and %d bytes, want %d and %d", test.op, o.in, o.out, in, out)
		}
	}
}

func initBody(major, minor uint32, n int) []byte {
	b := make([]byte, max(n, 16))
	le.PutUint32(b[0:], major)
	le.PutUint32(b[4:], minor)
	le.PutUint32(b[8:], 128<<10)
	le.PutUint32(b[12:], 1<<31-1)
	return b[:n]
}

// TestContent: what the file system gets and returns.
func TestContent(t *testing.T) {
	f := newFake()
	d := start(t, newDevice(t, f))
	read := d.do(ask(opRead, 1, 1, append(numbers(fakeHandle, 3, 1000), make([]byte, 16)...)...), []int{7}, 1016, []int{10, 10, 500})
	for i, b := range read[headerOut:] {
		if b != byte(3+i) {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
	data := bytes.Repeat([]byte("content"), 1000)
	body := append(append(numbers(fakeHandle, 3, uint64(len(data))), make([]byte, 16)...), data...)
	if out := d.do(ask(opWrite, 1, 1, body...), []int{7, 100, 1, 1}, 24, nil); le.Uint32(out[16:]) != uint32(len(data)) || !bytes.Equal(f.written, data) {
		t.Errorf("% x; %d bytes were written", out, len(f.written))
	}
	d.do(ask(opLookup, 1, 1, []byte("a/../b\x00")...), nil, 144, nil)
	d.do(ask(opRename2, 1, 1, append(make([]byte, 16), "from\x00to\x00"...)...), nil, 16, nil)
	d.do(ask(opSymlink, 1, 1, []byte("name\x00/etc\x00")...), nil, 144, nil)
	d.do(ask(opSetxattr, 1, 1, append(numbers(3), "user.k\x00a\x00b"...)...), nil, 16, nil)
	want := []string{"a/../b", "from", "to", "name", "/etc", "user.k", "a\x00b"}
	if !slices.Equal(f.names, want) {
		t.Errorf("names %q, want %q", f.names, want)
	}
	if f.synced > 0 || d.do(ask(opSyncfs, 1, 1, numbers(0)...), nil, 16, nil) == nil || f.synced != 1 {
		t.Errorf("synced %d times", f.synced)
	}
}

// TestCaller: the file system is told which user creates a file, and which writes are
// unprivileged.
func TestCaller(t *testing.T) {
	f := newFake()
	d := start(t, newDevice(t, f))
	b := ask(opMkdir, 1, 1, join(make([]byte, 8), str("name"))...)
	le.PutUint32(b[24:], 1000)
	le.PutUint32(b[28:], 100)
	if got := reply(d.do(b, nil, 144, nil)); got.errno != 0 || f.made != (fuse.Owner{Uid: 1000, Gid: 100}) {
		t.Errorf("%v, made by %+v", got.errno, f.made)
	}
	for _, flags := range []uint32{0, fuse.WRITE_KILL_SUIDGID, 1} {
		b := ask(opWrite, 1, 1, join(rw(fakeHandle, 0, 1), []byte("x"))...)
		le.PutUint32(b[headerIn+20:], flags)
		if got := reply(d.do(b, nil, 24, nil)); got.errno != 0 || f.killed != (flags&fuse.WRITE_KILL_SUIDGID != 0) {
			t.Errorf("flags %d: %v, kill %v", flags, got.errno, f.killed)
		}
	}
}

// TestLong: an operation that must be metered or waited for is left to a worker. It ends
// when the device is interrupted.
func TestLong(t *testing.T) {
	f := newFake()
	f.long = true
	dev := newDevice(t, f)
	dev.Continue()
	d := start(t, dev)
	d.chain(ask(opWrite, 1, 1, join(rw(fakeHandle, 0, 1), []byte("x"))...), nil, 24, nil)
	dev.Serve(1, d.q) // returns at once
	dev.Interrupt()
	if n := d.wait(); n != 24 {
		t.Errorf("%d bytes", n)
	}
	dev.Interrupt()
	dev.Continue()
}

// TestUnanswered: a request without an answer, or without room for one, is used with
// length 0.
func TestUnanswered(t *testing.T) {
	for _, test := range []struct {
		name   string
		out    []byte
		room   int
		forgot string
	}{
		{"forget", ask(opForget, 1, 5, numbers(3)...), 0, "map[5:3]"},
		{"forget with room", ask(opForget, 1, 5, numbers(3)...), 100, "map[5:3]"},
		{"forget, short", ask(opForget, 1, 5, numbers(3)[:7]...), 0, "map[]"},
		{"batch", ask(opBatchForget, 1, 0, numbers(2, 5, 3, 6, 4)...), 0, "map[5:3 6:4]"},
		{"batch of none", ask(opBatchForget, 1, 0, numbers(0)...), 0, "map[]"},
		{"batch, fewer", ask(opBatchForget, 1, 0, numbers(3, 5, 3, 6, 4)...), 0, "map[]"},
		{"batch, more", ask(opBatchForget, 1, 0, numbers(1, 5, 3, 6, 4)...), 0, "map[]"},
		{"batch, overflow", ask(opBatchForget, 1, 0, numbers(1<<28, 5, 3)...), 0, "map[]"},
		{"batch, short", ask(opBatchForget, 1, 0, 1, 0), 0, "map[]"},
		{"interrupt", ask(opInterrupt, 1, 0, numbers(5)...), 0, "map[]"},
		{"notify reply", ask(opNotifyReply, 1, 0, numbers(5)...), 16, "map[]"},
		{"getattr without room", ask(opGetattr, 1, 5, numbers(0, 0)...), 15, "map[]"},
		{"half a header", make([]byte, 20), 0, "map[]"},
		{"nothing", nil, 0, "map[]"},
	} {
		f := newFake()
		d := start(t, newDevice(t, f))
		d.chain(test.out, nil, test.room, nil)
		d.dev.Serve(0, d.q)
		if n := d.wait(); n != 0 || fmt.Sprint(f.forgot) != test.forgot {
			t.Errorf("%s: used %d, forgot %v, want %s", test.name, n, f.forgot, test.forgot)
		}
		d.stop()
	}
}

// TestLength: a header with a wrong request length is refused.
func TestLength(t *testing.T) {
	d := start(t, newDevice(t, newFake()))
	for _, n := range []uint32{0, 39, 40, 55, 57, 1<<32 - 1} {
		out := ask(opGetattr, 5, 1, numbers(0, 0)...)
		le.PutUint32(out, n)
		if r := reply(d.do(out, nil, 120, nil)); r != (answerHeader{16, fuse.EINVAL, 5}) {
			t.Errorf("length %d: %+v", n, r)
		}
	}
	if r := reply(d.do(make([]byte, 39), nil, 120, nil)); r != (answerHeader{16, fuse.EINVAL, 0}) {
		t.Errorf("half a header: %+v", r)
	}
}

// TestSession: INIT returns the features in use. INIT, DESTROY and a reset each forget
// the session.
func TestSession(t *testing.T) {
	f := newFake()
	dev := newDevice(t, f)
	d := start(t, dev)
	out := d.do(ask(opInit, 1, 0, initBody(major, 38, 64)...), nil, 80, nil)[headerOut:]
	flags := le.Uint32(out[12:])
	const want = fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_READDIRPLUS | fuse.CAP_MAX_PAGES | fuse.CAP_AUTO_INVAL_DATA
	const never = fuse.CAP_WRITEBACK_CACHE | fuse.CAP_POSIX_LOCKS | fuse.CAP_FLOCK_LOCKS | fuse.CAP_SUBMOUNTS | fuse.CAP_POSIX_ACL | fuse.CAP_SETXATTR_EXT
	if le.Uint32(out) != major || flags&want != want || flags&never != 0 || le.Uint32(out[20:]) != maxIO || le.Uint16(out[28:]) != maxIO>>12 {
		t.Errorf("INIT: flags %#x, % x", flags, out)
	}
	if f.resets != 1 {
		t.Errorf("INIT forgets %d times", f.resets)
	}
	d.do(ask(opDestroy, 1, 0), nil, 16, nil)
	d.do(ask(opInit, 1, 0, initBody(major, 38, 64)...), nil, 80, nil)
	if f.resets != 3 {
		t.Errorf("%d times after DESTROY and INIT", f.resets)
	}
	d.stop()
	dev.Reset()
	if f.resets != 4 || dev.init != nil {
		t.Errorf("%d times after a reset", f.resets)
	}
}

// TestState: a session continues in another device.
func TestState(t *testing.T) {
	f := newFake()
	dev := newDevice(t, f)
	fresh, err := dev.Save()
	if err != nil {
		t.Fatal(err)
	}
	d := start(t, dev)
	d.do(ask(opInit, 1, 0, initBody(major, 38, 64)...), nil, 80, nil)
	d.stop()
	saved, err := dev.Save()
	if err != nil {
		t.Fatal(err)
	}
	other := newDevice(t, f)
	for _, b := range [][]byte{fresh, saved} {
		if err := other.Load(b); err != nil {
			t.Fatal(err)
		}
		if again, err := other.Save(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("saved %s, loaded and saved %s, %v", b, again, err)
		}
	}
	for _, bad := range []string{"", "null1", "[]", `{"Files":[]}`, `{"Init":"AAAA","Files":{}}`, strings.Replace(string(saved), `"Init":"aAAAABo`, `"Init":"aAAAABs`, 1)} {
		if bad == string(saved) {
			t.Fatal("the state is as it was")
		}
		if err := other.Load([]byte(bad)); err == nil {
			t.Errorf("loaded %s", bad)
		}
	}
}

func TestNew(t *testing.T) {
	for _, c := range []Config{{Tag: ""}, {Tag: strings.Repeat("x", 37)}, {Tag: "a\x00b"}, {Tag: "a", Queues: MaxQueues + 1}} {
		if _, err := New(newFake(), c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	long := strings.Repeat("x", 36)
	d, err := New(newFake(), Config{Tag: long})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 50)
	d.ReadConfig(0, p)
	if string(p[:36]) != long || le.Uint32(p[36:]) != 1 || d.ID() != 26 || d.Features() != 0 || !slices.Equal(d.QueueSizes(), []uint16{1024, 1024}) {
		t.Errorf("config % x", p)
	}
}

// TestLog: a bug causes one line in the device's log, however often the guest meets it,
// and an error.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	d, err := New(newFake(), Config{Tag: "t", Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if s := d.panicked("a bug"); s != fuse.EIO {
			t.Error(s)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "a bug") || d.Panics() != 5 {
		t.Errorf("%d lines, %d bugs: %s", n, d.Panics(), &log)
	}
}

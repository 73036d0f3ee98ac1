package disk

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newFile returns the path and the content of a file of n random bytes.
func newFile(t testing.TB, dir string, n int) (string, []byte) {
	t.Helper()
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	path := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, b
}

func open(t testing.TB, path string, o Options) *Image {
	t.Helper()
	m, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// split cuts b into pieces, some of them empty.
func split(b []byte, size func() int) (bufs [][]byte) {
	for len(b) > 0 {
		n := min(size(), len(b))
		bufs, b = append(bufs, b[:n:n]), b[n:]
	}
	return append(bufs, nil)
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	os.WriteFile(at("odd"), make([]byte, 1000), 0o600)
	os.WriteFile(at("empty"), nil, 0o600)
	if err := unix.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ path, want string }{
		{at("none"), "truncate -s 10G " + at("none")},
		{dir, "is a directory: a disk is a raw image in a regular file, or a block device"},
		{at("fifo"), "is a FIFO"},
		{"/dev/null", "is a character device"},
		{at("odd"), "size 1000 is not a multiple of 512: round it up with: truncate -s %512 " + at("odd")},
		{at("empty"), "is empty: make it 10 GiB with: truncate -s 10G " + at("empty")},
	} {
		for _, o := range []Options{{}, {ReadOnly: true}} {
			m, err := Open(test.path, o)
			if err == nil {
				m.Close()
				t.Fatalf("%s: opened", test.path)
			}
			if s := err.Error(); !strings.HasPrefix(s, "disk "+test.path+": ") || !strings.Contains(s, test.want) || strings.Count(s, test.path) > 2 || strings.Contains(s, "\n") {
				t.Errorf("%s: %q, want %q", test.path, s, test.want)
			}
		}
	}
}

// TestExplain: errors that a test does not get when it runs as root.
func TestExplain(t *testing.T) {
	for _, test := range []struct {
		errno unix.Errno
		want  string
	}{
		{unix.EACCES, "open it read-only"},
		{unix.EROFS, "open it read-only"},
		{unix.EBUSY, "another process uses it, or it is mounted"},
		{unix.EINVAL, "no direct I/O"},
		{unix.ENXIO, "no such device or address"},
	} {
		err := explain(&os.PathError{Op: "open", Path: "x", Err: test.errno}, "x")
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v", test.errno, err)
		}
	}
}

func TestReadWrite(t *testing.T) {
	const size = 1 << 20
	path, want := newFile(t, t.TempDir(), size)
	m := open(t, path, Options{})
	exercise(t, m, want, 300)
	if got, _ := os.ReadFile(path); !bytes.Equal(got, want) {
		t.Error("the file differs")
	}
	if l, p, _, _ := m.Topology(); m.Size() != size || m.ReadOnly() || l != 512 || p != 4096 || m.Path() != path {
		t.Errorf("%d bytes, read-only %v, blocks %d/%d", m.Size(), m.ReadOnly(), l, p)
	}
}

// exercise compares m with want during random transfers, from one byte per buffer to
// more buffers than one call takes.
func exercise(t *testing.T, m *Image, want []byte, rounds int) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range rounds {
		off := r.IntN(len(want))
		n := r.IntN(min(len(want)-off, 200<<10) + 1)
		switch r.IntN(3) {
		case 0:
			off, n = off&^511, n&^511
		case 1:
			off, n = off&^4095, n&^4095
		}
		n = min(n, len(want)-off)
		size := func() int { return r.IntN(max(2, n/[]int{1, 10, 300}[i%3])) }
		b := make([]byte, n)
		if r.IntN(2) == 0 {
			if err := m.ReadvAt(split(b, size), int64(off)); err != nil {
				t.Fatal(err)
			}
		} else {
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			if err := m.WritevAt(split(b, size), int64(off)); err != nil {
				t.Fatal(err)
			}
			copy(want[off:], b)
		}
		if !bytes.Equal(b, want[off:off+n]) {
			t.Fatalf("%d bytes at %#x differ", n, off)
		}
	}
	all := make([]byte, len(want))
	if err := m.ReadvAt([][]byte{all}, 0); err != nil || !bytes.Equal(all, want) {
		t.Fatalf("the disk differs, %v", err)
	}
	if err := m.Flush(); err != nil {
		t.Error(err)
	}
}

func TestBounds(t *testing.T) {
	path, _ := newFile(t, t.TempDir(), 4096)
	m := open(t, path, Options{})
	b := make([]byte, 512)
	for _, off := range []int64{-1, -512, 4096 - 511, 4096, 1 << 40, 1<<63 - 1} {
		_, tryErr := m.TryReadvAt([][]byte{b}, off)
		for name, err := range map[string]error{
			"read": m.ReadvAt([][]byte{b}, off), "write": m.WritevAt([][]byte{b}, off), "try": tryErr,
			"discard": m.Discard(off, 512), "zero": m.WriteZeroes(off, 512, true),
		} {
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("%s at %#x: %v", name, off, err)
			}
		}
	}
	if err := m.Discard(0, -512); !errors.Is(err, unix.EINVAL) && err != nil {
		t.Error(err)
	}
	if info, _ := os.Stat(path); info.Size() != 4096 {
		t.Errorf("the file has %d bytes now", info.Size())
	}
}

// TestTruncated: reading a truncated part is an error, and does not return zeros.
func TestTruncated(t *testing.T) {
	path, _ := newFile(t, t.TempDir(), 8192)
	for _, o := range []Options{{}, {Direct: true}} {
		os.Truncate(path, 8192)
		m, err := Open(path, o)
		if err != nil {
			t.Logf("%+v: %v", o, err)
			continue
		}
		os.Truncate(path, 4196)
		b := make([]byte, 4096)
		if err := m.ReadvAt([][]byte{b}, 4096); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), path) {
			t.Errorf("%+v: %v", o, err)
		}
		if done, err := m.TryReadvAt([][]byte{b}, 4096); done {
			t.Errorf("%+v: a short read is done, %v", o, err)
		}
		m.Close()
	}
}

func TestReadOnly(t *testing.T) {
	path, _ := newFile(t, t.TempDir(), 4096)
	m := open(t, path, Options{ReadOnly: true})
	if !m.ReadOnly() {
		t.Error("not read-only")
	}
	b := [][]byte{make([]byte, 512)}
	if done, _ := m.TryWritevAt(b, 0); done {
		t.Error("written")
	}
	for _, err := range []error{m.WritevAt(b, 0), m.Discard(0, 512), m.WriteZeroes(0, 512, true), m.WriteZeroes(0, 512, false)} {
		if !errors.Is(err, unix.EBADF) {
			t.Errorf("%v", err)
		}
	}
	if err := m.Flush(); err != nil {
		t.Error(err)
	}
}

func TestTry(t *testing.T) {
	path, want := newFile(t, t.TempDir(), 64<<10)
	m := open(t, path, Options{})
	b := make([]byte, 64<<10)
	if err := m.ReadvAt([][]byte{b}, 0); err != nil { // cache it
		t.Fatal(err)
	}
	clear(b)
	done, err := m.TryReadvAt(split(b, func() int { return 1000 }), 0)
	if m.noTryRead.Load() {
		t.Skip("this file system has no RWF_NOWAIT")
	}
	if !done || err != nil || !bytes.Equal(b, want) {
		t.Errorf("done %v, %v", done, err)
	}
}

// TestTryInMemory: in a tmpfs nothing waits, even on an old kernel.
func TestTryInMemory(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "disk")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	path, want := newFile(t, dir, 64<<10)
	m := open(t, path, Options{})
	if !inMemory(m.fd) {
		t.Skip("/dev/shm is no tmpfs")
	}
	b := make([]byte, 64<<10)
	if done, err := m.TryReadvAt([][]byte{b}, 0); !done || err != nil || !bytes.Equal(b, want) {
		t.Errorf("read: done %v, %v", done, err)
	}
	if done, err := m.TryWritevAt([][]byte{b[:4096]}, 4096); !done || err != nil {
		t.Errorf("write: done %v, %v", done, err)
	}
	if m.ReadvAt([][]byte{b}, 0); !bytes.Equal(b[4096:8192], want[:4096]) {
		t.Error("what was written is not there")
	}
}

func TestLock(t *testing.T) {
	path, _ := newFile(t, t.TempDir(), 4096)
	writer, reader := Options{}, Options{ReadOnly: true}
	for _, test := range []struct {
		first, second Options
		shared        bool
	}{{writer, writer, false}, {writer, reader, false}, {reader, writer, false}, {reader, reader, true}} {
		m, err := Open(path, test.first)
		if err != nil {
			t.Fatal(err)
		}
		n, err := Open(path, test.second)
		if err == nil {
			n.Close()
		}
		if shared := err == nil; shared != test.shared {
			t.Errorf("%+v: shared %v", test, shared)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "disk "+path+": another process uses it") {
			t.Errorf("%v", err)
		}
		if got := openInChild(t, path, test.second); (got == "") != test.shared {
			t.Errorf("%+v: another process: %q", test, got)
		}
		m.Close()
	}
	open(t, path, writer)
}

const childPath = "VMM_DISK_CHILD"

// openInChild opens path in another process and returns the error's text.
func openInChild(t *testing.T, path string, o Options) string {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childPath+"="+path)
	if o.ReadOnly {
		cmd.Env = append(cmd.Env, childPath+"_RO=1")
	}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	if !strings.Contains(string(out), "another process") {
		t.Errorf("child: %v: %s", err, out)
	}
	return string(out)
}

func TestChild(t *testing.T) {
	path := os.Getenv(childPath)
	if path == "" {
		t.Skip("of TestLock")
	}
	open(t, path, Options{ReadOnly: os.Getenv(childPath+"_RO") != ""})
}

func TestZeroes(t *testing.T) {
	const size = 4 << 20
	for _, test := range []struct {
		name                 string
		noPunch, noZeroRange bool
		opts                 Options
	}{
		{name: "fast"}, {name: "no punch", noPunch: true}, {name: "written", noPunch: true, noZeroRange: true},
		{name: "direct", opts: Options{Direct: true}}, {"direct written", true, true, Options{Direct: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path, want := newFile(t, t.TempDir(), size)
			m, err := Open(path, test.opts)
			if err != nil {
				t.Skip(err)
			}
			defer m.Close()
			m.noPunch.Store(test.noPunch)
			m.noZeroRange.Store(test.noZeroRange)
			for _, r := range []struct {
				off, n   int
				mayUnmap bool
			}{{0, 512, false}, {4096, 8192, true}, {100 << 10, 3 << 20, false}, {3<<20 + 512, 512 << 10, true}, {size - 512, 512, true}, {512, 0, true}} {
				if err := m.WriteZeroes(int64(r.off), int64(r.n), r.mayUnmap); err != nil {
					t.Fatal(err)
				}
				clear(want[r.off : r.off+r.n])
			}
			got := make([]byte, size)
			if err := m.ReadvAt([][]byte{got}, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("differs, %v", err)
			}
		})
	}
}

func TestDiscard(t *testing.T) {
	path, want := newFile(t, t.TempDir(), 2<<20)
	m := open(t, path, Options{})
	before := blocks(t, path)
	if err := m.Discard(64<<10, 1<<20); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if after := blocks(t, path); after > before-1<<20/512 {
		t.Errorf("%d blocks, %d before", after, before)
	}
	got := make([]byte, 2<<20)
	m.ReadvAt([][]byte{got}, 0)
	if !bytes.Equal(got[:64<<10], want[:64<<10]) || !bytes.Equal(got[64<<10+1<<20:], want[64<<10+1<<20:]) {
		t.Error("more than what was discarded is gone")
	}
	m.noTrims.Store(true)
	if err := m.Discard(0, 512); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

func blocks(t *testing.T, path string) int64 {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks
}

// TestLostWrites: a flush that failed once never succeeds again.
func TestLostWrites(t *testing.T) {
	path, _ := newFile(t, t.TempDir(), 4096)
	m := open(t, path, Options{})
	m.lost = unix.EIO
	for range 2 {
		if err := m.Flush(); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "flush") {
			t.Error(err)
		}
	}
}

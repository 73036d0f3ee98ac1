package machine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"vmm/guest/payload"
	"vmm/kvm"
	"vmm/test/allow"
)

// writeFiles creates files; a name that ends in / is a directory.
func writeFiles(t *testing.T, files map[string]string) {
	t.Helper()
	for name, content := range files {
		err := os.MkdirAll(filepath.Dir(name), 0o700)
		if err == nil && content != "" {
			err = os.WriteFile(name, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// exits is a kernel that exits with a code.
func exits(code byte) string {
	return string(payload.ELF(payload.Code(payload.Out8(portDebugExit, code))))
}

// life runs one machine of the Config, after f has looked at it.
func life(t *testing.T, c Config, f func(*Machine)) End {
	t.Helper()
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	f(m)
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	e, err := m.Run(ctx)
	if err != nil {
		t.Error(err)
	}
	return e
}

// TestLives: a guest's paths always lead to what they led to when it first started,
// whatever replaces it between two lives. A guest can replace files in a directory
// shared with it, and so can anyone else on the host.
func TestLives(t *testing.T) {
	sys, err := OpenKVM(kvm.Device)
	if err != nil {
		t.Skip(err)
	}
	sys.Close()
	t.Chdir(t.TempDir())
	writeFiles(t, map[string]string{
		"d/kernel": exits(1), "d/initrd": "mine, an initrd", "d/disk": strings.Repeat("m", 512), "d/share/mine": "m", "d/socks/": "",
		"e/kernel": exits(2), "e/initrd": "evil, an initrd", "e/disk": strings.Repeat("e", 1024), "e/share/evil": "e", "e/socks/": "", "e/pcap": "a letter",
		"e/cache/": "",
	})
	c := Config{
		Kernel: "d/kernel", Initrds: []string{"d/initrd"}, CPUs: 1, Memory: 32 << 20, KernelCache: "d/cache",
		Disks: []Disk{{Path: "d/disk"}}, Nets: []Net{{PCAP: "d/pcap"}}, Shares: []Share{{Dir: "d/share"}}, Vsock: &Vsock{Path: "d/socks/s"},
	}
	if c.Files, err = Hold(&c); err != nil {
		t.Fatal(err)
	}
	defer c.Files.Close()
	if e := life(t, c, mine(t, "d/")); e.Code != 1 {
		t.Errorf("the first life: %v", e)
	}
	errs := []error{os.Mkdir("away", 0o700)}
	for _, name := range []string{"kernel", "initrd", "disk", "share", "socks", "pcap", "cache"} {
		errs = append(errs, os.Rename("d/"+name, "away/"+name), os.Symlink("../e/"+name, "d/"+name))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if e := life(t, c, mine(t, "away/")); e.Code != 1 {
		t.Errorf("the second life: %v", e)
	}
	for name, want := range map[string]string{"e/pcap": "a letter", "away/pcap": recording(t, 2, "frame")} {
		b, err := os.ReadFile(name)
		if name == "away/pcap" {
			b = timeless(b)
		}
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for _, dir := range []string{"e/socks", "e/cache"} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", dir, left, err)
		}
	}
	if info, err := os.Stat("away/pcap"); err != nil || info.Mode() != 0o600 {
		t.Errorf("the recording: %v, %v", info.Mode(), err)
	}
}

// mine checks that a machine has the files meant for it, whose directory has been
// moved away, and makes it record a frame.
func mine(t *testing.T, away string) func(*Machine) {
	return func(m *Machine) {
		t.Helper()
		if n := m.devices.images[0].Size(); n != 512 {
			t.Errorf("a disk of %d bytes", n)
		}
		var out fuse.EntryOut
		if s := m.devices.shares[0].Lookup(nil, &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, "mine", &out); !s.Ok() {
			t.Errorf("the share: %v", s)
		}
		ram, err := m.mem.Slice(0, 32<<20)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(ram, []byte("mine, an initrd")) {
			t.Error("another initrd")
		}
		if s, err := net.Dial("unix", away+"socks/s"); err != nil {
			t.Error(err)
		} else {
			s.Close()
		}
		m.devices.nics[0].pcap.Send(0, nil, [][]byte{[]byte("frame")}) // user mode drops it
	}
}

// recording is a capture file that repeats a frame, with zero timestamps.
func recording(t *testing.T, times int, frame string) string {
	t.Helper()
	h := make([]byte, 24)
	for i, v := range []uint32{0xa1b23c4d, 4<<16 | 2, 0, 0, 1 << 18, 1} {
		binary.LittleEndian.PutUint32(h[4*i:], v)
	}
	r := make([]byte, 16)
	r[8], r[12] = byte(len(frame)), byte(len(frame))
	return string(h) + strings.Repeat(string(r)+frame, times)
}

// timeless removes the timestamps from a recording of short frames.
func timeless(b []byte) []byte {
	for i := 24; i+16 <= len(b); i += 16 + int(b[i+8]) {
		clear(b[i : i+8])
	}
	return b
}

// TestCollisions: some paths must not be where a guest can write.
func TestCollisions(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFiles(t, map[string]string{"s/sub/x": "x", "s/x": "x", "other/x": "x", "k": "x"})
	if err := os.Symlink("../other/x", "s/link"); err != nil {
		t.Fatal(err)
	}
	rw, ro := []Share{{Dir: "s"}}, []Share{{Dir: "s", ReadOnly: true}}
	for _, test := range []struct {
		name   string
		c      Config
		others []Place
		want   string
	}{
		{"beside it", Config{Shares: rw, Disks: []Disk{{Path: "other/x"}}, KernelCache: "cache", Vsock: &Vsock{Path: "v"}, Nets: []Net{{PCAP: "p"}}}, nil, ""},
		{"kernel", Config{Shares: rw, Kernel: "s/x"}, nil, "Kernel s/x is inside Shares s, "},
		{"initrd", Config{Shares: rw, Initrds: []string{"k", "s/sub/x"}}, nil, "Initrds s/sub/x"},
		{"disk", Config{Shares: rw, Disks: []Disk{{Path: "k"}, {Path: "s/link"}}}, nil, "Disks s/link"},
		{"disk, read-only", Config{Shares: rw, Disks: []Disk{{Path: "s/x", ReadOnly: true}}}, nil, "Disks s/x"},
		{"disk in what it may read", Config{Shares: ro, Disks: []Disk{{Path: "s/x"}}}, nil, ""},
		{"recording", Config{Shares: rw, Nets: []Net{{}, {PCAP: "s/new"}}}, nil, "Nets pcap=s/new"},
		{"vsock", Config{Shares: rw, Vsock: &Vsock{Path: "s/v"}}, nil, "Vsock s/v"},
		{"kernel cache", Config{Shares: rw, KernelCache: "s"}, nil, "KernelCache s "},
		{"kernel cache that is not there", Config{Shares: rw, KernelCache: "s/a/b"}, nil, "KernelCache s/a/b"},
		{"share", Config{Shares: []Share{{Dir: "s"}, {Dir: "s/sub"}}}, nil, "Shares s/sub is inside Shares s,"},
		{"share, given first", Config{Shares: []Share{{Dir: "s/sub"}, {Dir: "s"}}}, nil, "Shares s/sub is inside Shares s,"},
		{"read-only share", Config{Shares: []Share{{Dir: "s"}, {Dir: "s/sub", ReadOnly: true}}}, nil, "Shares s/sub"},
		{"share in what it may read", Config{Shares: []Share{{Dir: "s", ReadOnly: true}, {Dir: "s/sub"}}}, nil, ""},
		{"the same twice", Config{Shares: []Share{{Dir: "s"}, {Dir: "./s", ReadOnly: true}}}, nil, ""},
		{"two, inside each other in the guest", Config{Shares: []Share{{Dir: "s", Mount: "/mnt"}, {Dir: "other", Mount: "/mnt/b"}}}, nil, ""},
		{"a directory of the caller's", Config{Shares: rw}, []Place{{Name: "run", Path: "s", Root: true}}, "run s is inside"},
		{"a file of the caller's", Config{Shares: rw}, []Place{{Name: "log", Path: "s/sub/new"}}, "log s/sub/new"},
		{"share in a directory of the caller's", Config{Shares: []Share{{Dir: "other"}, {Dir: "s/sub"}}}, []Place{{Name: "run", Path: "s", Root: true}}, "Shares s/sub is inside run s, "},
		{"share in the kernel cache", Config{Shares: []Share{{Dir: "s/sub"}}, KernelCache: "s"}, nil, "Shares s/sub is inside KernelCache s, "},
		{"read-only, there", Config{Shares: []Share{{Dir: "s/sub", ReadOnly: true}, {Dir: "other"}}, KernelCache: "s"}, []Place{{Name: "run", Path: "s", Root: true}}, ""},
		{"share beside a file of the caller's", Config{Shares: []Share{{Dir: "s/sub"}}}, []Place{{Name: "log", Path: "s/new"}}, ""},
		{"of the caller's, elsewhere", Config{Shares: rw}, []Place{{Name: "log", Path: "new"}, {Name: "run", Path: "run", Root: true}}, ""},
	} {
		f, err := Hold(&test.c, test.others...)
		if f != nil {
			f.Close()
		}
		var in *CollisionError
		if test.want == "" && err != nil || test.want != "" && (!errors.As(err, &in) || !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	if _, err := os.Stat("s/a"); err == nil {
		t.Error("a directory was made in the share")
	}
}

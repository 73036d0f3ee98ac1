package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/disk"
	"vmm/guest/payload"
	"vmm/test/allow"
)

// payloadConfig is a small machine that runs code.
func payloadConfig(t testing.TB, code ...[]byte) Config {
	t.Helper()
	sys, err := OpenKVM(KVMDevice)
	if err != nil {
		t.Skip(err)
	}
	sys.Close()
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, payload.ELF(payload.Code(code...)), 0o600); err != nil {
		t.Fatal(err)
	}
	return Config{Kernel: path, CPUs: 2, Memory: crowdedMemory}
}

// crowdedMemory distinguishes the guest's memory from Go's arenas, which may be 32 MiB.
const crowdedMemory = 37 << 20

// crowded is a machine with every part except a tap, which needs privilege.
func crowded(t testing.TB) Config {
	c := payloadConfig(t, payload.Spin())
	dir, err := os.MkdirTemp("", "m") // a name short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Disks = append(c.Disks, Disk{Path: path, Queues: 2})
	}
	c.Nets = []Net{{PCAP: filepath.Join(dir, "pcap"), BytesPerSecond: 1 << 20, Forwards: []Forward{
		{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 22}, {UDP: true, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 53},
	}}, {}}
	c.Vsock = &Vsock{Path: filepath.Join(dir, "vsock")}
	if err := os.Mkdir(filepath.Join(dir, "share"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.Shares = []Share{{Dir: filepath.Join(dir, "share")}}
	c.Console, c.ConsoleSize = ConsoleVirtio, new(TerminalSize)
	c.Ports = []Port{{Name: "one", Stream: NewStream(nil, nil)}, {Name: "two"}}
	return c
}

// held lists what the process may hold for a machine.
func held(t testing.TB) (list []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil { // otherwise it was ReadDir's own
			list = append(list, fd.Name()+" "+to)
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "kvm") || mapping(line) == crowdedMemory {
			list = append(list, line)
		}
	}
	b := make([]byte, 1<<20)
	for one := range strings.SplitSeq(string(b[:runtime.Stack(b, true)]), "\n\n") {
		if ours.MatchString(one) && !strings.Contains(one, "testing.") {
			list = append(list, one)
		}
	}
	return list
}

// ours matches the product's functions.
var ours = regexp.MustCompile(`(?m)^vmm/`)

func mapping(line string) uint64 {
	var from, to uint64
	fmt.Sscanf(line, "%x-%x", &from, &to)
	return to - from
}

// nothingLeft waits until the process holds no more than before.
func nothingLeft(t testing.TB, before []string, c Config) {
	t.Helper()
	was := map[string]bool{}
	for _, h := range before {
		was[h] = true
	}
	for deadline := time.Now().Add(allow.Time(10 * time.Second)); ; time.Sleep(time.Millisecond) {
		var left []string
		for _, h := range held(t) {
			if !was[h] {
				left = append(left, h)
			}
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left:\n%s", strings.Join(left, "\n"))
		}
	}
	for _, d := range c.Disks {
		image, err := disk.Open(d.Path, disk.Options{})
		if err != nil {
			t.Fatal(err) // still locked
		}
		image.Close()
	}
	if c.Vsock != nil {
		if _, err := os.Lstat(c.Vsock.Path); !os.IsNotExist(err) {
			t.Fatalf("the socket: %v", err)
		}
	}
}

var errInjected = errors.New("injected")

// TestBuildUndone: if any step of build fails, or has a bug, everything that the
// earlier steps took is released.
func TestBuildUndone(t *testing.T) {
	c := crowded(t)
	sys, err := OpenKVM(KVMDevice)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	warm(t, c)
	before := held(t)
	for n := range len(newMachine(c).steps(sys)) + 1 {
		for what, fault := range map[string]func() error{
			"error": func() error { return errInjected },
			"panic": func() error { panic(errInjected) },
		} {
			m := newMachine(c)
			steps := append(m.steps(sys)[:n:n], fault)
			func() {
				defer func() {
					if r := recover(); (r == errInjected) != (what == "panic") {
						t.Fatalf("step %d: panic %v", n, r)
					}
				}()
				if err := m.build(steps); err != errInjected {
					t.Fatalf("step %d: %v", n, err)
				}
			}()
			nothingLeft(t, before, c)
		}
	}
}

// warm triggers what happens only once in a process.
func warm(t *testing.T, c Config) {
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	// The poller's descriptors exist from now on.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// limited runs f under a process limit.
func limited(t *testing.T, resource int, limit uint64, f func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(resource, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(resource, &was)
	f()
}

// TestBuildWithoutFiles: at whichever descriptor the process runs out, none of the
// earlier ones is left open.
func TestBuildWithoutFiles(t *testing.T) {
	c := crowded(t)
	sys, err := OpenKVM(KVMDevice)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	warm(t, c)
	before := held(t)
	failed := 0
	for n := uint64(3); ; n++ {
		m := newMachine(c)
		var err error
		limited(t, unix.RLIMIT_NOFILE, n, func() { err = m.build(m.steps(sys)) })
		if err == nil {
			m.Close()
			break
		}
		if !errors.Is(err, unix.EMFILE) {
			t.Fatalf("%d descriptors: %v", n, err)
		}
		failed++
		nothingLeft(t, before, c)
	}
	if failed < 20 {
		t.Errorf("%d failures; there are more descriptors than that", failed)
	}
}

// TestNoMemory: memory that the host refuses is an error, reported before any
// device exists.
func TestNoMemory(t *testing.T) {
	c := payloadConfig(t, payload.Spin())
	c.Memory = 512 << 30
	limited(t, unix.RLIMIT_AS, 400<<30, func() {
		m, err := New(c)
		if host := (*HostError)(nil); !errors.As(err, &host) || m != nil {
			t.Errorf("%v", err)
		}
	})
}

// TestStuckPart: a disk whose requests the host does not complete keeps its own
// image and the guest's memory, and nothing else. It keeps them until the requests
// complete.
func TestStuckPart(t *testing.T) {
	c := crowded(t)
	warm(t, c)
	before := held(t)
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	stuck := m.parts[slices.IndexFunc(m.parts, func(p *part) bool { return p.name == "disk "+c.Disks[0].Path })]
	stuck.does(func() { <-release })
	port := m.files.Bound(m.config).Nets[0].Forwards[0].Listen.String()
	ctx, over := context.WithCancel(t.Context())
	freed := make(chan error, 1)
	go func() { freed <- m.freeUntil(ctx, time.Hour) }()
	for _, p := range m.parts {
		if p != stuck {
			select {
			case <-p.closed:
			case <-time.After(allow.Time(10 * time.Second)):
				t.Errorf("%s is not closed", p.name)
			}
		}
	}
	over() // time is up
	var e *StuckError
	select {
	case err := <-freed:
		if !errors.As(err, &e) || e.Part != stuck.name || strings.Count(err.Error(), "not closed") != 1 {
			t.Fatalf("closed: %v", err)
		}
	case <-time.After(allow.Time(10 * time.Second)):
		t.Fatal("the stuck part is waited for")
	}
	if _, err := disk.Open(c.Disks[0].Path, disk.Options{}); err == nil {
		t.Error("the stuck image is free")
	}
	if image, err := disk.Open(c.Disks[1].Path, disk.Options{}); err != nil {
		t.Error(err)
	} else {
		image.Close()
	}
	if _, err := os.Lstat(c.Vsock.Path); !os.IsNotExist(err) {
		t.Errorf("the socket: %v", err)
	}
	if l, err := net.Listen("tcp", port); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	if err := m.mem.Write(0, []byte{1}); err != nil { // faults if the memory is gone
		t.Error(err)
	}
	close(release)
	nothingLeft(t, before, c)
}

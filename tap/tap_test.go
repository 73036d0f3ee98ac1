package tap

import (
	"bytes"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/ethernet"
	"vmm/test/allow"
)

var deadline = allow.Time(10 * time.Second)

// private moves the test to its own network namespace, where it may do anything
// without disturbing others.
func private(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("a network namespace needs root: %v", err)
	}
	if _, err := os.Stat(device); err != nil {
		t.Skip(err)
	}
}

func open(t *testing.T, name string, pairs int) *Tap {
	t.Helper()
	tap, err := Open(name, pairs)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tap.Close() })
	return tap
}

// station is a guest with one card. It answers nothing, and keeps the frames it gets.
type station struct {
	tap    *Tap
	frames chan []byte
	more   bool // what Readable returns
}

func start(t *testing.T, tap *Tap, m ethernet.Mode) *station {
	t.Helper()
	s := &station{tap: tap, frames: make(chan []byte, 100), more: true}
	if err := tap.Configure(m); err != nil {
		t.Fatal(err)
	}
	if err := tap.Start(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tap.Stop)
	return s
}

func (s *station) Writable(int) {}
func (s *station) Readable(pair int) bool {
	for s.more {
		var h ethernet.Header
		b := make([]byte, ethernet.MaxFrame)
		n, err := s.tap.Receive(pair, &h, [][]byte{b[:7], b[7:]})
		if err != nil {
			return err == ethernet.ErrAgain
		}
		s.frames <- b[:n]
	}
	return false
}

// next returns the next frame of a protocol.
func (s *station) next(t *testing.T, protocol uint16) []byte {
	t.Helper()
	for end := time.After(deadline); ; {
		select {
		case f := <-s.frames:
			if uint16(f[12])<<8|uint16(f[13]) == protocol {
				return f
			}
		case <-end:
			t.Fatal("no frame")
		}
	}
}

// setAddress gives the host's end an IPv4 address.
func setAddress(t *testing.T, name string, ip ...byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, _ := unix.NewIfreq(name)
	r.SetInet4Addr(ip)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r); err != nil {
		t.Fatal(err)
	}
}

const arp, ipv4 = 0x0806, 0x0800

// request returns an ARP request from 10.1.2.15 for 10.1.2.1.
func request() []byte {
	b := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(b, 2, 0, 0, 0, 0, 1, 10, 1, 2, 15)
	b = append(b, 0, 0, 0, 0, 0, 0, 10, 1, 2, 1)
	return append(b, make([]byte, 60-len(b))...)
}

// TestFrames: the host's kernel answers a frame, however it is split, and its answer
// arrives.
func TestFrames(t *testing.T) {
	private(t)
	tap := open(t, "", 1)
	setAddress(t, tap.Name(), 10, 1, 2, 1)
	s := start(t, tap, ethernet.Mode{Pairs: 1, Offload: offload})
	if info := tap.Info(); info.Pairs != 1 || info.MTU != 1500 || info.Offload != offload {
		t.Errorf("%+v", info)
	}
	pieces := make([][]byte, 0, maxVector+10)
	for range maxVector + 9 {
		pieces = append(pieces, nil)
	}
	f := request()
	for i, frame := range [][][]byte{{f}, {f[:1], f[1:14], f[14:]}, append(pieces, f)} {
		var h ethernet.Header
		if err := tap.Send(0, &h, frame); err != nil {
			t.Fatal(err)
		}
		got := s.next(t, arp)
		if !bytes.Equal(got[:6], f[6:12]) || got[21] != 2 || !bytes.Equal(got[28:32], []byte{10, 1, 2, 1}) {
			t.Errorf("%d: the answer is % x", i, got)
		}
	}
}

// TestResume: a station that had no room gets the waiting frames when it has room
// again.
func TestResume(t *testing.T) {
	private(t)
	tap := open(t, "", 1)
	setAddress(t, tap.Name(), 10, 1, 2, 1)
	s := &station{tap: tap, frames: make(chan []byte, 100), more: true}
	full := make(chan struct{}, 100)
	if err := tap.Configure(ethernet.Mode{Pairs: 1}); err != nil {
		t.Fatal(err)
	}
	room := false
	g := events(func(pair int) bool {
		if !room {
			full <- struct{}{}
			return false
		}
		return s.Readable(pair)
	})
	if err := tap.Start(g); err != nil {
		t.Fatal(err)
	}
	defer tap.Stop()
	var h ethernet.Header
	if err := tap.Send(0, &h, [][]byte{request()}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-full:
	case <-time.After(deadline):
		t.Fatal("not readable")
	}
	if len(full) != 0 {
		t.Error("asked again before it was resumed")
	}
	room = true
	tap.Resume(0)
	s.next(t, arp)
}

type events func(pair int) bool

func (e events) Readable(pair int) bool { return e(pair) }
func (events) Writable(int)             {}

// TestStop: frames that arrive while the guest is paused are there afterwards, but
// not for the next guest.
func TestStop(t *testing.T) {
	private(t)
	tap := open(t, "", 1)
	setAddress(t, tap.Name(), 10, 1, 2, 1)
	s := start(t, tap, ethernet.Mode{Pairs: 1})
	asks := func(sender byte) {
		var h ethernet.Header
		r := request()
		r[31] = sender
		tap.Send(0, &h, [][]byte{r})
	}
	again := func() {
		if err := tap.Start(s); err != nil {
			t.Fatal(err)
		}
	}
	tap.Stop()
	for len(s.frames) > 0 {
		<-s.frames
	}
	asks(16) // answered while stopped
	again()
	if got := s.next(t, arp); got[41] != 16 {
		t.Errorf("not the frame from before Start: % x", got)
	}
	tap.Stop()
	asks(17)
	tap.Discard()
	asks(18)
	again()
	asks(19)
	if got := s.next(t, arp); got[41] != 19 {
		t.Errorf("an old frame: % x", got)
	}
	tap.Stop()
}

// TestPairs: a tap with several queues uses as many as are configured.
func TestPairs(t *testing.T) {
	private(t)
	tap := open(t, "", 3)
	setAddress(t, tap.Name(), 10, 1, 2, 1)
	for _, pairs := range []int{3, 1, 2} {
		s := start(t, tap, ethernet.Mode{Pairs: pairs, Offload: ethernet.Checksum | ethernet.TSO4})
		for i := range pairs {
			var h ethernet.Header
			if err := tap.Send(i, &h, [][]byte{request()}); err != nil {
				t.Fatalf("pair %d of %d: %v", i, pairs, err)
			}
			s.next(t, arp)
		}
		tap.Stop()
	}
}

// TestExisting: an existing tap is used as it is, and stays.
func TestExisting(t *testing.T) {
	private(t)
	first := open(t, "vmmtest0", 1)
	if _, err := Open("vmmtest0", 1); err == nil || !strings.Contains(err.Error(), "another program uses it") {
		t.Errorf("in use: %v", err)
	}
	if err := unix.IoctlSetInt(first.queues[0].fd, unix.TUNSETPERSIST, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open("vmmtest0", 2); err == nil || !strings.Contains(err.Error(), "multi_queue") {
		t.Errorf("two queues: %v", err)
	}
	first.Close()
	second := open(t, "vmmtest0", 1)
	second.Close()
	if _, err := net.InterfaceByName("vmmtest0"); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}

// TestErrors: each error says what to do.
func TestErrors(t *testing.T) {
	private(t)
	for _, test := range []struct {
		name string
		want string
	}{
		{strings.Repeat("x", 16), "longer than 15 bytes"},
		{"lo", "is no tap"},
	} {
		if tap, err := Open(test.name, 1); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v", test.name, tap, err)
		}
	}
	for _, test := range []struct {
		err     error
		existed bool
		want    string
	}{
		{unix.EPERM, false, "have root create it once: ip tuntap add dev tap0 mode tap user $USER"},
		{unix.EPERM, true, "another user"},
		{unix.ENOENT, false, "modprobe tun"},
	} {
		if err := explain(test.err, "tap0", test.existed, 1); !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v", err)
		}
	}
}

// TestNoAllocation: a frame each way allocates nothing.
func TestNoAllocation(t *testing.T) {
	private(t)
	tap := open(t, "", 1)
	var h ethernet.Header
	frame, room := [][]byte{request()}, [][]byte{make([]byte, 2000)}
	if n := testing.AllocsPerRun(100, func() {
		tap.Send(0, &h, frame)
		tap.Receive(0, &h, room)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

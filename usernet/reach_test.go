package usernet

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace runs the rest of a test in a process with its own network namespace.
// The loopback is up, and ip(8) runs the setup.
func inNamespace(t *testing.T, setup ...string) (inside bool) {
	t.Helper()
	const mark = "USERNET_TEST_NAMESPACE"
	if os.Getenv(mark) == t.Name() {
		for _, line := range append([]string{"link set lo up"}, setup...) {
			ip(t, line)
		}
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	c.Env = append(os.Environ(), mark+"="+t.Name())
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if id := os.Getuid(); id != 0 {
		c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := c.CombinedOutput()
	switch {
	case c.Process == nil:
		t.Skipf("no network namespace: %v", err)
	case err != nil:
		t.Errorf("%v: %s", err, out)
	}
	return false
}

func ip(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", line, err, out)
	}
}

func v4(a [4]byte) string { return netip.AddrFrom4(a).String() }

func not(a [4]byte) []byte { return []byte{^a[0], ^a[1], ^a[2], ^a[3]} }

// from returns an IPv6 address that starts with parts and ends in zeros.
func from(parts ...any) string {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			d, err := hex.DecodeString(p)
			if err != nil {
				panic(err)
			}
			b = append(b, d...)
		case []byte:
			b = append(b, p...)
		}
	}
	return netip.AddrFrom16([16]byte(append(b, make([]byte, 16-len(b))...))).String()
}

// reach is what a guest reaches without HostLoopback, and with it.
type reach struct {
	address       string
	not, loopback bool
}

var reaches = []reach{
	{"198.51.100.7", false, true},
	{"198.51.100.8", false, true},
	{"198.51.100.255", false, true}, // the kernel refuses broadcasts
	{"198.51.100.9", true, true},
	{"203.0.113.3", false, true},
	{"203.0.113.77", true, true},
	{"2001:db8::7", false, true},
	{"2001:db8::8", true, true},
	{"fd00:ec2::254", false, true},
	{"fd00:ec2::23", false, true},
	{"fd20:ce::254", false, true},
	{"fd00:42::42", false, true},
	{"fd00:42::43", true, true},
	{"100.100.100.200", false, true},
	{"168.63.129.16", false, true},
	{"192.0.0.192", false, true},
	{"169.254.169.254", false, false},
	{"127.0.0.1", false, false},
	{"255.255.255.255", false, false},
	{"0.0.0.0", false, false},
	{"::", false, false},
	{"::1", false, false},
	{"::ffff:198.51.100.7", false, false},
	{"::198.51.100.7", false, false},
}

// disguises turn IPv4 addresses into IPv6 ones. The last ones may have other meanings
// too.
var disguises = []func(a [4]byte) string{
	func(a [4]byte) string { return "64:ff9b::" + v4(a) },
	func(a [4]byte) string { return "64:ff9b:1::" + v4(a) },
	func(a [4]byte) string { return "64:ff9b:1:7::" + v4(a) },
	func(a [4]byte) string { return "::ffff:0:" + v4(a) },                            // SIIT
	func(a [4]byte) string { return from("2002", a[:], "0001000000000007") },         // 6to4
	func(a [4]byte) string { return from("20010000c000020100003039", not(a)) },       // Teredo client
	func(a [4]byte) string { return from("20010000", a[:], "00003039", "3ffffdfe") }, // Teredo server
	func(a [4]byte) string { return from("20010db80000000500005efe", a[:]) },         // ISATAP
	func(a [4]byte) string { return from("20010db80000000502005efe", a[:]) },
	func(a [4]byte) string { return from("0064ff9b0001", a[:2], "00", a[2:]) },   // /48 prefix
	func(a [4]byte) string { return from("0064ff9b000177", a[:1], "00", a[1:]) }, // /56 prefix
	func(a [4]byte) string { return from("0064ff9b0001777700", a[:]) },           // /64 prefix
}

// TestReach: what a guest reaches on a host, given the addresses the host has when
// the guest asks, including those of metadata services.
func TestReach(t *testing.T) {
	if !inNamespace(t, "link add card type veth peer name other", "link set other up", "link set card up", "addr add 198.51.100.7/24 dev card", "addr add 198.51.100.8/24 dev card",
		"addr add 2001:db8::7/64 dev card nodad", "route add local 203.0.113.0/28 dev lo", "route add default dev card", "-6 route add default dev card") {
		return
	}
	for _, loopback := range []bool{false, true} {
		g := newGuest(t, Config{HostLoopback: loopback}, 0, nil)
		for _, r := range reaches {
			want := r.not
			if loopback {
				want = r.loopback
			}
			a := netip.MustParseAddr(r.address)
			if to, ok := g.net.host(a); ok != want || to != a {
				t.Errorf("host-loopback %v: %v: %v, %v, want %v", loopback, a, to, ok, want)
			}
			for i, f := range disguises {
				if !a.Is4() || a.IsUnspecified() {
					break
				}
				if _, ok := g.net.host(netip.MustParseAddr(f(a.As4()))); ok != want && (ok || i < len(disguises)-3) {
					t.Errorf("host-loopback %v: %s for %v: %v, want %v", loopback, f(a.As4()), a, ok, want)
				}
			}
		}
		again := netip.MustParseAddr("198.51.100.9")
		ip(t, "addr add 198.51.100.9/24 dev card")
		if _, ok := g.net.host(again); ok != loopback {
			t.Errorf("host-loopback %v: an address that the host has got: %v", loopback, ok)
		}
		ip(t, "addr del 198.51.100.9/24 dev card")
		reachesAll(t, g, loopback)
	}
}

// TestReachesStill: a guest that sends to an unused address does not reach this host
// when the host gets that address.
func TestReachesStill(t *testing.T) {
	if !inNamespace(t, "link add card type veth peer name other", "link set other up", "link set card up", "addr add 198.51.100.7/24 dev card") {
		return
	}
	g := newGuest(t, Config{}, 0, nil)
	to := netip.MustParseAddrPort("198.51.100.9:7000")
	talk := func() { g.send(GatewayMAC, 0x800, udpPacket(netip.AddrPortFrom(Guest, 1000), to, []byte("x"))) }
	talk()
	if m, f := g.counts(); m != 1 || f != 1 {
		t.Fatalf("%d ports, %d flows", m, f)
	}
	ip(t, "addr add 198.51.100.9/24 dev card")
	l, err := net.ListenPacket("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g.net.flows.mu.Lock()
	for _, f := range g.net.flows.byID {
		f.checked.Store(0) // time passes
	}
	g.net.flows.mu.Unlock()
	talk()
	if arrives(t, l.(*net.UDPConn), false) {
		t.Error("a datagram for an address that the host has got")
	}
	if m, f := g.counts(); m != 0 || f != 0 {
		t.Errorf("%d ports, %d flows", m, f)
	}
}

// reachesAll tries real TCP and UDP.
func reachesAll(t *testing.T, g *guest, want bool) {
	t.Helper()
	for _, address := range []string{"198.51.100.7:0", "[2001:db8::7]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := g.dial(l.Addr().(*net.TCPAddr).AddrPort())
		if (err == nil) != want {
			t.Errorf("TCP to %s: %v", address, err)
		}
		if err == nil {
			c.Close()
		}
		u, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		d := g.dialUDP(u.LocalAddr().(*net.UDPAddr).AddrPort())
		d.Write([]byte("x"))
		if got := arrives(t, u.(*net.UDPConn), want); got != want {
			t.Errorf("UDP to %s: %v", address, got)
		}
	}
}

// arrives reports whether there is a datagram; it waits for one that is due. A
// datagram that Send lets through is there at once.
func arrives(t *testing.T, c *net.UDPConn, due bool) (ok bool) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(deadline))
	raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 10), unix.MSG_DONTWAIT)
		ok = err == nil
		return ok || !due
	})
	return ok
}

// TestRoutesAnswers: only a kernel answer is taken for one.
func TestRoutesAnswers(t *testing.T) {
	answer := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg)
	binary.NativeEndian.PutUint16(answer[4:], unix.RTM_NEWROUTE)
	binary.NativeEndian.PutUint32(answer[8:], 7)
	answer[unix.SizeofNlMsghdr+7] = unix.RTN_LOCAL
	if kind, ok := routeKind(answer, 7); !ok || kind != unix.RTN_LOCAL {
		t.Error(kind, ok)
	}
	if _, ok := routeKind(answer, 8); ok {
		t.Error("an answer to another question")
	}
	for i := range answer {
		if _, ok := routeKind(answer[:i], 7); ok && i < unix.SizeofNlMsghdr+8 {
			t.Errorf("%d bytes of an answer", i)
		}
	}
	r, err := newRoutes()
	if err != nil {
		t.Fatal(err)
	}
	r.close()
	if _, err := r.own(Gateway); err == nil {
		t.Error("an answer after close")
	}
}

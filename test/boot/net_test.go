package boot

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"vmm/test/boot/pattern"
)

// fileServer serves one file on the host's loopback, and returns its port.
func fileServer(t *testing.T, content string) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, content) })}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// freePort returns an unused loopback port.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// nameServer acts as the host's resolver in the lab, which has none. It knows one
// name, the gateway's.
func nameServer(t *testing.T, name string) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := os.WriteFile("/etc/resolv.conf", []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Additionals = true, nil
			if q.Name.String() == name+"." && q.Type == dnsmessage.TypeA {
				h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}
				m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: [4]byte{10, 0, 2, 2}}}}
			}
			if answer, err := m.Pack(); err == nil {
				c.WriteTo(answer, from)
			}
		}
	}()
}

// neighbourAddress belongs to another host, as far as the guest can tell.
const neighbourAddress = "192.0.2.1"

// neighbour makes the host answer for another host, in a network reserved for
// documentation (RFC 5737).
func neighbour(t *testing.T) {
	t.Helper()
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := exec.Command("ip", "addr", "add", neighbourAddress+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("ip addr: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "addr", "del", neighbourAddress+"/32", "dev", "lo").Run() })
}

// online waits until the guest has its address.
func (g *guest) online() {
	g.prompt()
	g.do("while ! grep -q nameserver /etc/resolv.conf; do sleep 0.2; done; echo on''line", "online\r\n")
}

// TestNetUser: a guest has a network without privilege: an address, names, the host's
// services, and connections from outside.
func TestNetUser(t *testing.T) {
	need(t, cloud)
	web, telnet := fileServer(t, "a file of the host"), freePort(t)
	if inLab {
		nameServer(t, "files.test")
		neighbour(t)
	}
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "-a", "quiet", "--net", "user,host-loopback", "-p", fmt.Sprintf("%d:23", telnet))...)
	}, func(g *guest) {
		g.online()
		g.do("ip addr show eth0", "10.0.2.15/24")
		g.do("ping -c 1 10.0.2.2", "icmp_seq=1")
		g.do(fmt.Sprintf("wget -O /tmp/a http://10.0.2.2:%d/; cat /tmp/a", web), "a file of the host")
		if inLab {
			g.do(fmt.Sprintf("wget -O /tmp/b http://files.test:%d/; cat /tmp/b", web), "a file of the host")
			g.do("ping -c 1 "+neighbourAddress, "icmp_seq=1")
		}
		g.do("telnetd &", "")
		c := connect(telnet)
		defer c.Close()
		io.WriteString(c, "echo in''side; exit\r\n")
		if out, err := io.ReadAll(c); !strings.Contains(string(out), "inside") {
			fail(false, "telnet: %v: %q", err, out)
		}
		g.send("poweroff\n")
		g.status(0)
	})
}

// connect connects to a port forwarded to the guest. If no program listens there yet,
// the connection ends.
func connect(port int) net.Conn {
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			fail(false, "port %d: %v", port, err)
		}
		c.SetDeadline(time.Now().Add(patience))
		if n, err := io.ReadFull(c, make([]byte, 1)); n == 1 && err == nil {
			return c
		}
		c.Close()
		if time.Now().After(end) {
			fail(true, "nobody listens behind port %d", port)
		}
	}
}

// namespace makes a network namespace for vmm, with a bridge at 10.9.0.1 that has the
// taps.
func namespace(t *testing.T, taps ...string) (name string) {
	t.Helper()
	name = fmt.Sprintf("vmm-%d", os.Getpid())
	run := func(args ...string) {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	run("netns", "add", name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	run("-n", name, "link", "add", "br0", "type", "bridge")
	run("-n", name, "addr", "add", "10.9.0.1/24", "dev", "br0")
	for _, tap := range taps {
		run("-n", name, "tuntap", "add", "dev", tap, "mode", "tap", "multi_queue")
		run("-n", name, "link", "set", tap, "up", "master", "br0")
	}
	run("-n", name, "link", "set", "br0", "up")
	return name
}

// TestNetTaps: two guests on two taps of one bridge reach the host and each other, with
// all tap offloads, over several queues and over one.
func TestNetTaps(t *testing.T) {
	need(t, cloud)
	ns := namespace(t, "tap0", "tap1")
	args := func(tap, address, cpus, more string) []string {
		return cloud.args("-m", "256M", "-c", cpus, "-a", "quiet vmm.ip="+address, "--net", "tap="+tap+more, "--initrd", tool(t))
	}
	attempt(t, func() *guest { return inNamespace(ns, args("tap0", "10.9.0.2/24", "2", ",queues=2")...) }, func(g *guest) {
		other := inNamespace(ns, args("tap1", "10.9.0.3/24", "1", ",queues=2,mac=52:54:00:12:34:56")...)
		defer func() {
			other.cmd.Process.Kill()
			<-other.exited
		}()
		other.prompt()
		g.prompt()
		g.do("ping -c 1 10.9.0.1", "icmp_seq=1")
		g.do("ping -c 1 10.9.0.3", "icmp_seq=1")
		other.do("ip addr show eth0", "52:54:00:12:34:56")
		const n = 4 << 20
		sum := fmt.Sprintf("NET-HASH %x", sha256.Sum256(pattern.Bytes(n)))
		for _, way := range []struct {
			from, to *guest
			address  string
		}{{g, other, "10.9.0.3:5000"}, {other, g, "10.9.0.2:5000"}} {
			way.to.send("/tool receive " + way.address + "\n")
			way.to.expect("NET-READY")
			way.from.send(fmt.Sprintf("/tool send %s %d\n", way.address, n))
			way.to.expect(sum)
			way.to.prompt()
			way.from.prompt()
		}
	})
}

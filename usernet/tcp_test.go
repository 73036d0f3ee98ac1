package usernet

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmm/ethernet"
)

// TestTCP: a host server echoes bytes, and its end follows them.
func TestTCP(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, offload := range []ethernet.Offload{0, ethernet.Checksum, allOffloads} {
			t.Run(fmt.Sprintf("%s/%#x", network, offload), func(t *testing.T) {
				g := newGuest(t, Config{HostLoopback: true}, offload, nil)
				c := g.mustDial(serve(t, network, echo))
				want := pattern(300_000)
				go func() {
					c.Write(want)
					c.CloseWrite()
				}()
				got, err := io.ReadAll(c)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes of %d, %v", len(got), len(want), err)
				}
			})
		}
	}
}

// pattern returns bytes whose period matches no packet or buffer size.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i/251 + i/65521)
	}
	return b
}

// TestBulk: large transfers arrive intact each way, even if the guest's driver
// changes its offloads halfway.
func TestBulk(t *testing.T) {
	block := pattern(1 << 20)
	sum := crc32.NewIEEE()
	for range bulk / len(block) {
		sum.Write(block)
	}
	for _, test := range []struct {
		name          string
		offload, then ethernet.Offload
	}{
		{"all", allOffloads, allOffloads},
		{"none", 0, 0},
		{"changing", allOffloads, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t, Config{HostLoopback: true}, test.offload, nil)
			change := func() { g.net.Configure(ethernet.Mode{Pairs: 1, Offload: test.then}) }
			if got := bulkToHost(t, g, block, change); got != sum.Sum32() {
				t.Errorf("to the host: checksum %#x, want %#x", got, sum.Sum32())
			}
			g.net.Configure(ethernet.Mode{Pairs: 1, Offload: test.offload})
			if got := bulkFromHost(t, g, block, change); got != sum.Sum32() {
				t.Errorf("from the host: checksum %#x, want %#x", got, sum.Sum32())
			}
			if (g.segmented.Load() > 0) != (test.offload != 0) {
				t.Errorf("%d of %d frames with several segments", g.segmented.Load(), g.frames.Load())
			}
			t.Logf("%d frames, %d with several segments", g.frames.Load(), g.segmented.Load())
		})
	}
}

// bulkToHost sends block until enough is sent, calls change halfway, and returns the
// checksum of what arrives.
func bulkToHost(t *testing.T, g *guest, block []byte, change func()) uint32 {
	sums := make(chan uint32, 1)
	c := g.mustDial(serve(t, "tcp4", func(c *net.TCPConn) {
		h := crc32.NewIEEE()
		io.Copy(h, c)
		sums <- h.Sum32()
	}))
	for i := range bulk / len(block) {
		if i == bulk/len(block)/2 {
			change()
		}
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	c.CloseWrite()
	return receive(t, "the end", sums)
}

// bulkFromHost is the same in the other direction.
func bulkFromHost(t *testing.T, g *guest, block []byte, change func()) uint32 {
	c := g.mustDial(serve(t, "tcp4", func(c *net.TCPConn) {
		for range bulk / len(block) {
			c.Write(block)
		}
	}))
	h := crc32.NewIEEE()
	if _, err := io.CopyN(h, c, bulk/2); err != nil {
		t.Fatal(err)
	}
	change()
	if n, err := io.Copy(h, c); n != bulk-bulk/2 || err != nil {
		t.Errorf("%d bytes in the second half, %v", n, err)
	}
	return h.Sum32()
}

// TestHalfClose: either side may end its direction and still receive.
func TestHalfClose(t *testing.T) {
	t.Run("host first", func(t *testing.T) {
		g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
		got := make(chan string, 1)
		c := g.mustDial(serve(t, "tcp4", func(c *net.TCPConn) {
			io.WriteString(c, "hello")
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			got <- string(b)
		}))
		if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
		io.WriteString(c, "and back")
		c.CloseWrite()
		if s := <-got; s != "and back" {
			t.Errorf("%q", s)
		}
	})
	t.Run("guest first", func(t *testing.T) {
		g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
		c := g.mustDial(serve(t, "tcp4", func(c *net.TCPConn) {
			b, _ := io.ReadAll(c)
			fmt.Fprintf(c, "%q", b)
		}))
		io.WriteString(c, "hello")
		c.CloseWrite()
		if b, err := io.ReadAll(c); string(b) != `"hello"` || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
		c := g.mustDial(serve(t, "tcp4", func(c *net.TCPConn) {
			c.Read(make([]byte, 1))
			c.SetLinger(0)
		}))
		io.WriteString(c, "x")
		if _, err := io.ReadAll(c); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("%v", err)
		}
	})
}

// TestRefused: ports without a listener, and addresses that the guest does not reach.
func TestRefused(t *testing.T) {
	at := serve(t, "tcp4", echo)
	at6 := serve(t, "tcp6", echo)
	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	port := closed.Addr().(*net.TCPAddr).AddrPort().Port()
	for _, test := range []struct {
		loopback bool
		address  netip.AddrPort
	}{
		{true, netip.AddrPortFrom(Gateway, port)},
		{false, at},
		{false, at6},
		{true, netip.AddrPortFrom(DNS, at.Port())},
		{true, netip.AddrPortFrom(netip.MustParseAddr("10.0.2.77"), at.Port())},
		{true, netip.AddrPortFrom(netip.MustParseAddr("169.254.169.254"), at.Port())},
		{true, netip.AddrPortFrom(netip.MustParseAddr("0.0.0.1"), at.Port())},
		{true, netip.AddrPortFrom(netip.MustParseAddr("240.0.0.1"), at.Port())},
		{true, netip.AddrPortFrom(netip.MustParseAddr("fd00:0:0:2::77"), at6.Port())},
		{true, netip.AddrPortFrom(netip.MustParseAddr("::127.0.0.1"), at.Port())},
	} {
		t.Run(test.address.String(), func(t *testing.T) {
			g := newGuest(t, Config{HostLoopback: test.loopback}, allOffloads, nil)
			c, err := g.dial(test.address)
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			if !strings.Contains(err.Error(), "refused") {
				t.Error(err)
			}
		})
	}
}

// TestHost checks addresses too that a proper guest never sends to.
func TestHost(t *testing.T) {
	n := &Network{config: Config{HostLoopback: true}}
	for address, want := range map[string]string{
		"10.0.2.2":         "127.0.0.1",
		"fd00:0:0:2::2":    "::1",
		"192.0.2.1":        "192.0.2.1",
		"2001:db8::1":      "2001:db8::1",
		"fd00:0:0:3::2":    "fd00:0:0:3::2",
		"10.0.3.2":         "10.0.3.2",
		"127.0.0.1":        "",
		"127.255.0.1":      "",
		"0.0.0.0":          "",
		"10.0.2.3":         "",
		"10.0.2.255":       "",
		"224.0.0.1":        "",
		"255.255.255.255":  "",
		"169.254.0.1":      "",
		"::":               "",
		"::1":              "",
		"::ffff:127.0.0.1": "",
		"::ffff:192.0.2.1": "",
		"::7f00:1":         "",
		"fe80::1":          "",
		"ff02::1":          "",
	} {
		a, ok := n.host(netip.MustParseAddr(address))
		if got := a.String(); ok != (want != "") || ok && got != want {
			t.Errorf("%s: %s, %v; want %q", address, got, ok, want)
		}
	}
}

// TestMany: many connections at once, each with its own bytes.
func TestMany(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
	at := serve(t, "tcp4", echo)
	all := make(chan struct{})
	var connected, done sync.WaitGroup
	connected.Add(many)
	go func() { connected.Wait(); close(all) }()
	errs := make(chan error, many)
	dialing := make(chan struct{}, maxHalfOpen/2) // more SYNs would be retransmitted a second later
	for i := range many {
		done.Go(func() {
			dialing <- struct{}{}
			c, err := g.dial(at)
			<-dialing
			connected.Done()
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			select {
			case <-all:
			case <-time.After(deadline):
				errs <- errors.New("timeout")
				return
			}
			c.SetDeadline(time.Now().Add(deadline))
			want := fmt.Sprintf("connection %d", i)
			io.WriteString(c, want)
			c.CloseWrite()
			if b, err := io.ReadAll(c); string(b) != want || err != nil {
				errs <- fmt.Errorf("%q, want %q; %v", b, want, err)
			}
		})
	}
	done.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

// TestSlowReader: a guest that does not read one connection, and a server that does
// not read another, do not stall a third.
func TestSlowReader(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
	stop := make(chan struct{})
	full := make(chan struct{})
	g.mustDial(serve(t, "tcp4", func(c *net.TCPConn) {
		b := make([]byte, 1<<20)
		c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		for {
			if _, err := c.Write(b); err != nil {
				break
			}
		}
		close(full)
		<-stop
	}))
	silent := g.mustDial(serve(t, "tcp4", func(*net.TCPConn) { <-stop }))
	defer close(stop)
	silent.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	b := make([]byte, 1<<20)
	for {
		if _, err := silent.Write(b); err != nil {
			break
		}
	}
	wait(t, "the guest's buffers are full", full)
	c := g.mustDial(serve(t, "tcp4", echo))
	want := pattern(4 << 20)
	go func() {
		c.Write(want)
		c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

// TestPaused: a connection of a guest that is paused repeatedly loses nothing; data
// that arrives meanwhile is kept.
func TestPaused(t *testing.T) {
	g := newGuest(t, Config{HostLoopback: true}, allOffloads, nil)
	c := g.mustDial(serve(t, "tcp4", echo))
	var answered, stop atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 20_000); stop.Load() == 0; answered.Add(1) {
			if _, err := c.Write(b); err != nil {
				t.Error(err)
				return
			}
			if _, err := io.ReadFull(c, b); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range 40 {
		before := answered.Load()
		g.net.Stop()
		eventually(t, "something comes in a pause", func() bool { return g.net.out.waiting() > 0 })
		if err := g.net.Start(g); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an answer after a pause", func() bool { return answered.Load() >= before+2 })
	}
	stop.Store(1)
	wait(t, "the last answer", done)
}

// waiting returns the number of frames kept.
func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}

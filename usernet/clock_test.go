package usernet

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// clockTests act on a timer set for 10 s.
var clockTests = map[string]struct {
	do   func(c *clock, timer tcpip.Timer)
	at   time.Duration // when it is due by host time; 0: never
	ends time.Duration // clock reading after 1,000 s
}{
	"running": {func(*clock, tcpip.Timer) {}, 10 * time.Second, 1000 * time.Second},
	"paused before it is due": {func(c *clock, _ tcpip.Timer) {
		time.Sleep(4 * time.Second)
		c.stop()
		time.Sleep(100 * time.Second)
		c.start()
	}, 110 * time.Second, 900 * time.Second},
	"paused and gone on before it would have been due": {func(c *clock, _ tcpip.Timer) {
		c.stop()
		time.Sleep(3 * time.Second)
		c.start()
	}, 13 * time.Second, 997 * time.Second},
	"paused twice": {func(c *clock, _ tcpip.Timer) {
		for range 2 {
			time.Sleep(4 * time.Second)
			c.stop()
			c.stop()
			time.Sleep(20 * time.Second)
			c.start()
			c.start()
		}
	}, 50 * time.Second, 960 * time.Second},
	"paused for good": {func(c *clock, _ tcpip.Timer) { time.Sleep(4 * time.Second); c.stop() }, 0, 4 * time.Second},
	"stopped":         {func(_ *clock, timer tcpip.Timer) { timer.Stop() }, 0, 1000 * time.Second},
	"stopped in a pause": {func(c *clock, timer tcpip.Timer) {
		c.stop()
		time.Sleep(20 * time.Second) // the timer is parked
		if !timer.Stop() || timer.Stop() {
			panic("it was stopped already, or twice")
		}
		if len(c.parked) > 0 {
			panic("it is kept")
		}
		c.start()
	}, 0, 980 * time.Second},
	"set anew in a pause": {func(c *clock, timer tcpip.Timer) {
		c.stop()
		time.Sleep(20 * time.Second)
		timer.Reset(5 * time.Second)
		time.Sleep(20 * time.Second)
		timer.Reset(3 * time.Second)
		c.start()
	}, 43 * time.Second, 960 * time.Second},
	"set anew": {func(_ *clock, timer tcpip.Timer) {
		time.Sleep(9 * time.Second)
		timer.Reset(10 * time.Second)
	}, 19 * time.Second, 1000 * time.Second},
}

// TestClock: a timer is due after its duration in guest time, whatever happens to
// either meanwhile.
func TestClock(t *testing.T) {
	for name, test := range clockTests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, begun := newClock(nil), time.Now()
				var at []time.Duration
				timer := c.AfterFunc(10*time.Second, func() { at = append(at, time.Since(begun)) })
				test.do(c, timer)
				time.Sleep(1000*time.Second - time.Since(begun))
				synctest.Wait()
				if test.at == 0 && at != nil || test.at != 0 && (len(at) != 1 || at[0] != test.at) {
					t.Errorf("due at %v, want %v", at, test.at)
				}
				if got := c.now(); got != test.ends || c.NowMonotonic() != (tcpip.MonotonicTime{}).Add(got) || c.Now().Sub(c.begun) != got {
					t.Errorf("the clock says %v, want %v", got, test.ends)
				}
				timer.Stop()
			})
		})
	}
}

// TestClockForward: a reader never sees the clock go back while it is stopped and
// started.
func TestClockForward(t *testing.T) {
	c := newClock(nil)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for last := c.now(); ; {
				select {
				case <-done:
					return
				default:
				}
				now := c.now()
				if now < last {
					t.Errorf("%v after %v", now, last)
					return
				}
				last = now
			}
		})
	}
	for range 1000 {
		c.stop()
		c.start()
	}
	close(done)
	readers.Wait()
}

// TestTimeStands: nothing that waits for a paused guest times out, and it does once the
// guest resumes and does nothing.
func TestTimeStands(t *testing.T) {
	const limit = 100 * time.Millisecond // for all timeouts
	g := newGuest(t, Config{HostLoopback: true, Forwards: []Forward{{false, netip.MustParseAddrPort("127.0.0.1:0"), 7}}}, allOffloads, func(s *settings) {
		s.dialTimeout, s.lingerTimeout, s.flowTimeout, s.dnsIdle = limit, limit, limit, limit
	})
	n := g.net
	n.clock.stop()
	g.mustDial(netip.AddrPortFrom(DNS, dnsPort))
	hosts := make(chan *net.TCPConn, 1)
	talks := g.mustDial(serve(t, "tcp4", func(c *net.TCPConn) { hosts <- c; c.Read(make([]byte, 1)) }))
	leaves := g.mustDial(serve(t, "tcp4", func(*net.TCPConn) {}))
	n.Stop()
	leaves.CloseWrite() // and does not hear the other side's end
	g.send(GatewayMAC, 0x800, udpPacket(netip.AddrPortFrom(Guest, 1000), serveUDP(t, "udp4", same), []byte("x")))
	host := receive(t, "the host's side", hosts)
	host.Write([]byte("something to be sent again"))
	caller, err := net.Dial("tcp", n.Forwarded()[0].Listen.String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	again := n.stack.Stats().TCP.Retransmits.Value()

	caller.SetDeadline(time.Now().Add(6 * limit)) // the pause
	if _, err := caller.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("a call in a pause: %v", err)
	}
	if m, f := g.counts(); m != 1 || f != 1 {
		t.Errorf("%d ports and %d flows after a pause", m, f)
	}
	if c := n.count(); c != 3 {
		t.Errorf("%d connections after a pause", c)
	}
	if more := n.stack.Stats().TCP.Retransmits.Value() - again; more != 0 {
		t.Errorf("%d segments were sent again in a pause", more)
	}

	g.sniff(func([]byte) bool { return true }) // the guest hears nothing and says nothing
	if err := n.Start(g); err != nil {
		t.Fatal(err)
	}
	caller.SetDeadline(time.Now().Add(deadline))
	if _, err := caller.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("a call that is not answered: %v", err)
	}
	eventually(t, "the flow ends", func() bool { m, f := g.counts(); return m+f == 0 })
	eventually(t, "all but one connection ends", func() bool { return n.count() == 1 })
	talks.Close()
}

// TestClockStops: time stands still between Stop and Start, if there is a driver.
func TestClockStops(t *testing.T) {
	g := newGuest(t, Config{}, 0, nil)
	n := g.net
	for i, step := range []struct {
		do   func()
		goes bool
	}{
		{func() {}, true},
		{n.Stop, false},
		{n.Stop, false},
		{func() { n.Start(g) }, true},
		{n.Stop, false},
		{n.Discard, true}, // the driver is gone
		{func() { n.Start(g) }, true},
		{n.Stop, false},
		{func() { n.Close() }, true},
	} {
		step.do()
		if goes := !n.clock.state.Load().since.IsZero(); goes != step.goes {
			t.Errorf("step %d: the clock goes: %t", i+1, goes)
		}
	}
}

package vsock

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmm/test/allow"
)

var patience = allow.Time(time.Minute)

// dialHost connects a host program to a port of the guest.
func dialHost(path string, port int) (c *net.UnixConn, r *bufio.Reader, err error) {
	if c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
		return nil, nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "CONNECT %d\n", port)
	r = bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || len(line) < 4 || line[:3] != "OK " {
		c.Close()
		return nil, nil, fmt.Errorf("%q, %v", line, err)
	}
	return c, r, nil
}

// listenHost serves the guest's calls to a port with serve.
func (l *live) listenHost(port int, serve func(*net.UnixConn)) {
	l.t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("%s_%d", l.path, port), Net: "unix"})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
}

// TestThousandStreams opens a thousand connections at once, half of them from the guest.
// On each, bytes go there and back, and both ends close.
func TestThousandStreams(t *testing.T) {
	const each, size = 500, 30_000
	l := newLive(t)
	data := pattern(size)
	l.takes = func(s *sock) { // it sends back what comes
		s.receive = func(s *sock, b []byte) { s.out = append(s.out, b...) }
		s.ended = func(s *sock) { s.last = true }
	}
	var open atomic.Int32
	all := make(chan struct{}) // closed once all are open
	arrived := func() {
		if open.Add(1) == 2*each {
			close(all)
		}
		<-all
	}
	l.listenHost(80, func(c *net.UnixConn) {
		defer c.Close()
		arrived()
		io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
	errs := make(chan error, 2*each)
	for range each {
		go func() {
			errs <- hostStream(l.path, data, arrived)
			l.irq.Signal() // so that drive sees it
		}()
	}
	for i := range each {
		l.dial(uint32(i), data, errs)
	}
	finished := 0
	var failed error
	stop := time.AfterFunc(patience, func() { errs <- errors.New("timeout"); l.irq.Signal() })
	defer stop.Stop()
	l.drive(func() bool {
		for {
			select {
			case err := <-errs:
				if finished++; err != nil && failed == nil {
					failed = err
				}
				continue
			default:
			}
			return failed != nil || finished == 2*each && len(l.socks) == 0
		}
	})
	if failed != nil {
		t.Fatal(failed)
	}
	if n := l.d.Conns(); n > 2*each {
		t.Errorf("%d connections", n)
	}
}

// hostStream is one connection from the host.
func hostStream(path string, data []byte, arrived func()) error {
	c, r, err := dialHost(path, 7)
	if err != nil {
		arrived()
		return err
	}
	defer c.Close()
	arrived()
	var sent sync.WaitGroup
	sent.Go(func() {
		c.Write(data)
		c.CloseWrite()
	})
	back, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(back, data) {
		err = fmt.Errorf("%d bytes came back of %d", len(back), len(data))
	}
	sent.Wait()
	return err
}

// dial is one connection from the guest.
func (l *live) dial(port uint32, data []byte, errs chan<- error) *sock {
	s := &sock{k: key{host: 80, guest: port}, out: data, last: true}
	var back []byte
	s.receive = func(_ *sock, b []byte) { back = append(back, b...) }
	s.ended = func(s *sock) {
		s.ended = nil
		if !bytes.Equal(back, data) {
			errs <- fmt.Errorf("%d bytes came back of %d", len(back), len(data))
			return
		}
		errs <- nil
		l.put(s, opShutdown, shutBoth, nil)
	}
	l.socks[s.k] = s
	l.put(s, opRequest, 0, nil)
	return s
}

// connect is a connection whose host end is serve.
func (l *live) connect(serve func(*net.UnixConn)) *sock {
	l.listenHost(80, serve)
	s := &sock{k: key{80, 1}}
	l.socks[s.k] = s
	l.put(s, opRequest, 0, nil)
	l.drive(func() bool { return s.alloc > 0 })
	return s
}

const benchSize = 64 << 10

// benchmark reports allocations of all goroutines. As in a machine, Go has more
// processors than goroutines that wait in the kernel: five here.
func benchmark(b *testing.B, f func()) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(7))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	f()
	b.StopTimer()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N), "mallocs/op")
}

// BenchmarkToHost sends 64 KiB, which is Linux's largest packet.
func BenchmarkToHost(b *testing.B) {
	l := newLive(b)
	done := make(chan struct{})
	s := l.connect(func(c *net.UnixConn) {
		buf := make([]byte, 256<<10)
		for left := b.N * benchSize; left > 0; {
			n, err := c.Read(buf)
			if err != nil {
				b.Error(err)
				break
			}
			left -= n
		}
		close(done)
		io.Copy(io.Discard, c)
	})
	data := pattern(benchSize)
	b.SetBytes(benchSize)
	benchmark(b, func() {
		left := b.N
		l.drive(func() bool {
			for left > 0 && len(s.out) == 0 && s.alloc-(s.sent-s.fwd) > 0 {
				s.out = data
				left--
				l.send(s)
			}
			return left == 0 && len(s.out) == 0
		})
		<-done
	})
}

// BenchmarkFromHost receives what a program sends, in buffers of 4 KiB as Linux has.
func BenchmarkFromHost(b *testing.B) {
	l := newLive(b)
	start := make(chan struct{})
	s := l.connect(func(c *net.UnixConn) {
		<-start
		buf := pattern(256 << 10)
		for left := b.N * benchSize; left > 0; {
			n, err := c.Write(buf[:min(left, len(buf))])
			if err != nil {
				b.Error(err)
				return
			}
			left -= n
		}
		io.Copy(io.Discard, c)
	})
	got := 0
	s.receive = func(_ *sock, p []byte) { got += len(p) }
	b.SetBytes(benchSize)
	benchmark(b, func() {
		close(start)
		l.drive(func() bool { return got >= b.N*benchSize })
	})
}

// BenchmarkRoundTrip sends a byte to a program that sends it back.
func BenchmarkRoundTrip(b *testing.B) {
	l := newLive(b)
	s := l.connect(func(c *net.UnixConn) { io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) })
	got := 0
	s.receive = func(_ *sock, p []byte) { got += len(p) }
	one := []byte{1}
	benchmark(b, func() {
		for i := range b.N {
			s.out = one
			l.send(s)
			l.drive(func() bool { return got > i })
		}
	})
}

// TestNoAllocation: a packet allocates nothing, in either direction.
func TestNoAllocation(t *testing.T) {
	d := newDriver(t, ringSize)
	s := d.dial()
	s.pipe.change(func() { s.pipe.keep = false }, 0)
	data := pattern(4000)
	p := s.header(opData, 0, len(data))
	in := bytes.Clone(data)
	if n := testing.AllocsPerRun(20, func() { // no more than the guest has room for
		d.tx.addPacket(p, data)
		d.Wake(queueTransmit)
		d.run()
		d.tx.used()
		s.pipe.change(func() { s.pipe.in = in }, 1)
		d.run()
		if b, ok := d.rx.used(); ok && len(b) == headerSize+len(in) {
			d.rx.add(d.rx.size)
		} else {
			t.Error("no packet")
		}
	}); n != 0 {
		t.Errorf("%v allocations for two packets", n)
	}
	if got := s.pipe.state().length; got != 21*len(data) {
		t.Errorf("the host has %d bytes", got)
	}
}

package usernet

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"vmm/task"
)

// copySize is how much is copied at once: two of the largest packets that netstack
// makes. One of many connections uses smallCopySize.
const (
	copySize      = 2 * (maxPacket - header.TCPTotalHeaderMaximumSize - 1)
	smallCopySize = 16 << 10
)

// copies and smallCopies are buffers that a connection holds only while there is data
// in them, not while it is silent.
var copies, smallCopies = buffers(copySize), buffers(smallCopySize)

func buffers(size int) *sync.Pool {
	return &sync.Pool{New: func() any {
		b := make([]byte, size)
		return &b
	}}
}

// guestConn is netstack's end of a connection to the guest.
type guestConn struct {
	ctx    context.Context // of the network
	owner  task.Owner      // likewise
	clock  *clock          // likewise
	ep     tcpip.Endpoint
	queue  waiter.Queue
	copies *sync.Pool

	slow *time.Timer // used by copyFrom

	writing          atomic.Bool // to the host's side, which may be blocking
	toHost, fromHost atomic.Bool // that direction is complete
}

func (n *Network) newConn() *guestConn {
	return &guestConn{ctx: n.ctx, owner: n.config.Owner, clock: n.clock}
}

func (g *guestConn) setOptions(small bool) {
	o := g.ep.SocketOptions()
	g.copies = copies
	if small {
		g.copies = smallCopies
		o.SetReceiveBufferSize(smallBufferSize, true)
		o.SetSendBufferSize(smallBufferSize, true)
	}
	o.SetDelayOption(false)
	o.SetKeepAlive(true)
	idle, interval := tcpip.KeepaliveIdleOption(keepaliveIdle), tcpip.KeepaliveIntervalOption(keepaliveInterval)
	g.ep.SetSockOpt(&idle)
	g.ep.SetSockOpt(&interval)
	g.ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepaliveCount)
}

// copyTo copies the guest's data to host, until the end of the stream.
func (g *guestConn) copyTo(host *net.TCPConn) error {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	g.queue.EventRegister(&entry)
	defer g.queue.EventUnregister(&entry)
	for {
		if g.ep.Readiness(waiter.ReadableEvents) == 0 {
			select {
			case <-ready:
			case <-g.ctx.Done():
				return net.ErrClosed
			}
			continue
		}
		b := g.copies.Get().(*[]byte)
		w := tcpip.SliceWriter(*b)
		r, err := g.ep.Read(&w, tcpip.ReadOptions{})
		var herr error
		if err == nil {
			g.writing.Store(true)
			_, herr = host.Write((*b)[:r.Count])
			g.writing.Store(false)
		}
		g.copies.Put(b)
		switch err.(type) {
		case nil:
			if herr != nil {
				return herr
			}
		case *tcpip.ErrWouldBlock:
		case *tcpip.ErrClosedForReceive:
			if g.broken() { // and the error was reported elsewhere
				return io.ErrUnexpectedEOF
			}
			return nil
		default:
			return io.ErrUnexpectedEOF
		}
	}
}

// copyFrom copies host's data to the guest, until the end of the stream.
func (g *guestConn) copyFrom(host *net.TCPConn) error {
	raw, err := host.SyscallConn()
	if err != nil {
		return err
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	g.queue.EventRegister(&entry)
	defer g.queue.EventUnregister(&entry)
	var b *[]byte
	var n int
	var errno error
	read := func(fd uintptr) bool {
		b = g.copies.Get().(*[]byte)
		for {
			if n, errno = unix.Read(int(fd), *b); errno != unix.EINTR {
				break
			}
		}
		if errno == unix.EAGAIN {
			g.copies.Put(b)
			b = nil
		}
		return errno != unix.EAGAIN
	}
	for {
		if err := raw.Read(read); err != nil {
			return err
		}
		if errno == nil && n > 0 {
			err = g.write((*b)[:n], ready, host)
		} else {
			err = errno
		}
		g.copies.Put(b)
		if err != nil || n <= 0 {
			return err
		}
	}
}

// write waits until netstack has taken all of b, which came from host. ready signals
// events of the queue.
func (g *guestConn) write(b []byte, ready <-chan struct{}, host *net.TCPConn) error {
	var r bytes.Reader
	for len(b) > 0 {
		r.Reset(b)
		n, err := g.ep.Write(&r, tcpip.WriteOptions{})
		b = b[n:]
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			if err := g.room(ready, host); err != nil {
				return err
			}
		default:
			return io.ErrClosedPipe
		}
	}
	return nil
}

// slow is how long a guest may take to make room before the host's side is watched:
// most have by then.
const slow = 20 * time.Millisecond

// room waits until ready, or until the network or the host's side is gone.
func (g *guestConn) room(ready <-chan struct{}, host *net.TCPConn) error {
	if g.slow == nil {
		g.slow = time.NewTimer(slow)
	} else {
		g.slow.Reset(slow)
	}
	select {
	case <-ready:
		g.slow.Stop()
		return nil
	case <-g.ctx.Done():
		return net.ErrClosed
	case <-g.slow.C:
		return g.watch(host, ready)
	}
}

// watch waits until stop, and returns an error if the host's side is reset first.
// Nothing else may read from host meanwhile.
func (g *guestConn) watch(host *net.TCPConn, stop <-chan struct{}) error {
	raw, err := host.SyscallConn()
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	g.owner.Go(func() {
		failed <- raw.Read(func(fd uintptr) bool {
			// A reset is an error; an end of stream is not.
			p := []unix.PollFd{{Fd: int32(fd)}}
			n, err := unix.Poll(p, 0)
			return err == nil && n > 0 && p[0].Revents&unix.POLLERR != 0
		})
	})
	select {
	case err := <-failed:
		if err == nil {
			err = unix.ECONNRESET
		}
		return err
	case <-stop:
	case <-g.ctx.Done():
		err = net.ErrClosed
	}
	host.SetReadDeadline(time.Unix(1, 0))
	if e := <-failed; e == nil {
		return unix.ECONNRESET
	}
	host.SetReadDeadline(time.Time{})
	return err
}

// resetGrace is how long the host's side may take to receive what the guest sent before
// a reset.
const resetGrace = 200 * time.Millisecond

// changed passes a reset by the guest on to the host's side. Netstack calls it when the
// connection's state changes; it does not block.
func (g *guestConn) changed(host *net.TCPConn) {
	if !g.broken() {
		return
	}
	host.SetWriteDeadline(time.Now().Add(resetGrace)) // copyTo fails by then
	if g.toHost.Load() {
		g.owner.Go(func() { reset(host) })
	}
}

// broken reports whether the connection to the guest has ended abnormally.
func (g *guestConn) broken() bool {
	switch tcp.EndpointState(g.ep.State()) {
	case tcp.StateError:
		return true
	case tcp.StateClose: // netstack's state for a reset after the guest's FIN
		return !g.fromHost.Load()
	}
	return false
}

// wait waits until netstack has released the connection and returns true, or until stop
// and returns false.
func (g *guestConn) wait(stop <-chan struct{}) bool {
	entry, changed := waiter.NewChannelEntry(waiter.EventHUp | waiter.EventErr)
	g.queue.EventRegister(&entry)
	defer g.queue.EventUnregister(&entry)
	for !g.ended() {
		select {
		case <-changed:
		case <-stop:
			return false
		case <-g.ctx.Done():
			return false
		}
	}
	return true
}

// ended reports whether the connection is over for both sides.
func (g *guestConn) ended() bool {
	s := tcp.EndpointState(g.ep.State())
	return s == tcp.StateClose || s == tcp.StateError
}

package usernet

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// copySize is what is moved at once: two of the largest packets that netstack
// makes; for one of many connections it is less.
const (
	copySize      = 2 * (maxPacket - header.TCPTotalHeaderMaximumSize - 1)
	smallCopySize = 16 << 10
)

// copies and smallCopies are buffers that are held while there is something in
// them, and not while a connection is silent.
var copies, smallCopies = buffers(copySize), buffers(smallCopySize)

func buffers(size int) *sync.Pool {
	return &sync.Pool{New: func() any {
		b := make([]byte, size)
		return &b
	}}
}

// guestConn is netstack's end of a connection with the guest.
type guestConn struct {
	ctx    context.Context // of the network
	ep     tcpip.Endpoint
	queue  waiter.Queue
	copies *sync.Pool
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

// copyTo moves what the guest sends to host, until its end.
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
			_, herr = host.Write((*b)[:r.Count])
		}
		g.copies.Put(b)
		switch err.(type) {
		case nil:
			if herr != nil {
				return herr
			}
		case *tcpip.ErrWouldBlock:
		case *tcpip.ErrClosedForReceive:
			return nil
		default:
			return io.ErrUnexpectedEOF
		}
	}
}

// copyFrom moves what host sends to the guest, until its end.
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
			err = g.write((*b)[:n], ready)
		} else {
			err = errno
		}
		g.copies.Put(b)
		if err != nil || n <= 0 {
			return err
		}
	}
}

// write waits until netstack has taken all of b. ready is of the queue.
func (g *guestConn) write(b []byte, ready <-chan struct{}) error {
	var r bytes.Reader
	for len(b) > 0 {
		r.Reset(b)
		n, err := g.ep.Write(&r, tcpip.WriteOptions{})
		b = b[n:]
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			select {
			case <-ready:
			case <-g.ctx.Done():
				return net.ErrClosed
			}
		default:
			return io.ErrClosedPipe
		}
	}
	return nil
}

// wait waits until netstack holds nothing of the connection any more, and returns
// true, or until stop.
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

package usernet

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// flow is who the guest exchanges datagrams with: one of its ports, and one of
// another host, or the other way round.
type flow struct {
	send  func([]byte) // does not block
	close func()
	used  atomic.Int64 // nanoseconds of the clock
	quote atomic.Pointer[[]byte]
}

func (f *flow) touch() { f.used.Store(time.Now().UnixNano()) }

// flows are all of them. When there are too many, the one that was silent for
// longest gives way.
type flows struct {
	mu     sync.Mutex
	byID   map[stack.TransportEndpointID]*flow // guarded by mu
	closed bool                                // guarded by mu
}

func (f *flows) find(id stack.TransportEndpointID) *flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byID[id]
}

// add returns false after closeAll, and for an id that there is a flow of.
func (f *flows) add(id stack.TransportEndpointID, w *flow) bool {
	w.touch()
	f.mu.Lock()
	if f.closed || f.byID[id] != nil {
		f.mu.Unlock()
		return false
	}
	var oldest *flow
	if len(f.byID) >= maxFlows {
		var oldestID stack.TransportEndpointID
		for i, w := range f.byID {
			if oldest == nil || w.used.Load() < oldest.used.Load() {
				oldestID, oldest = i, w
			}
		}
		delete(f.byID, oldestID)
	}
	f.byID[id] = w
	f.mu.Unlock()
	if oldest != nil {
		oldest.close()
	}
	return true
}

// end ends a flow.
func (f *flows) end(id stack.TransportEndpointID, w *flow) {
	f.mu.Lock()
	if f.byID[id] == w {
		delete(f.byID, id)
	}
	f.mu.Unlock()
	w.close()
}

// expire ends those that were silent for a time.
func (f *flows) expire(idle time.Duration) {
	for _, w := range f.take(time.Now().Add(-idle).UnixNano()) {
		w.close()
	}
}

func (f *flows) closeAll() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	for _, w := range f.take(1<<63 - 1) {
		w.close()
	}
}

// take removes those that were not used since.
func (f *flows) take(since int64) (ended []*flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, w := range f.byID {
		if w.used.Load() <= since {
			delete(f.byID, id)
			ended = append(ended, w)
		}
	}
	return ended
}

// handleUDP takes a datagram of the guest's. It returns false for one that shall
// be answered as unreachable. It is called by Send, and does not block.
func (n *Network) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	data := dataOf(pkt, int(header.UDP(pkt.TransportHeader().Slice()).Length())-header.UDPMinimumSize)
	if data == nil {
		return true
	}
	from, to := endpoints(id)
	if to.Port() == dhcpServerPort && from.Port() == dhcpClientPort && (to.Addr() == Gateway || id.LocalAddress == header.IPv4Broadcast) {
		n.handleDHCP(data)
		return true
	}
	switch {
	case !neighbour(from.Addr()), pkt.PktType != tcpip.PacketHost, to.Addr().IsMulticast():
		return true // without an answer
	case isDNS(to.Addr()) && to.Port() == dnsPort:
		n.handleDNS(from, to, data)
		return true
	}
	f := n.flows.find(id)
	if f == nil {
		host, ok := n.host(to.Addr())
		if !ok {
			return false
		}
		if f = n.newFlow(id, netip.AddrPortFrom(host, to.Port())); f == nil {
			return false
		}
	}
	f.touch()
	if f.quote.Load() == nil {
		q := quoteOf(pkt)
		f.quote.Store(&q)
	}
	f.send(data)
	return true
}

// quoteOf returns the part of a packet that an ICMP message about it has.
func quoteOf(pkt *stack.PacketBuffer) []byte {
	return append(append([]byte(nil), pkt.NetworkHeader().Slice()...), pkt.TransportHeader().Slice()...)
}

// newFlow opens a socket to where the guest wants to, or returns nil.
func (n *Network) newFlow(id stack.TransportEndpointID, to netip.AddrPort) *flow {
	d := net.Dialer{Control: noBroadcast}
	c, err := d.DialContext(n.ctx, "udp", to.String()) // does not wait for anything
	if err != nil {
		n.log.Debug("user network: a datagram of the guest's", "err", err)
		return nil
	}
	conn := c.(*net.UDPConn)
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil
	}
	f := &flow{close: func() { conn.Close() }}
	f.send = func(b []byte) { sendNow(raw, b, nil) }
	if !n.flows.add(id, f) {
		conn.Close()
		return nil
	}
	if !n.start(func() { n.receiveFlow(id, f, conn) }) {
		n.flows.end(id, f)
		return nil
	}
	return f
}

// noBroadcast undoes what Go sets: datagrams to the broadcast address of one of
// the host's networks fail then.
func noBroadcast(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0) }); cerr != nil {
		return cerr
	}
	return err
}

// sendNow sends a datagram, or loses it. to is nil for a connected socket.
func sendNow(raw syscall.RawConn, b []byte, to unix.Sockaddr) {
	raw.Write(func(fd uintptr) bool {
		unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, to)
		return true
	})
}

// datagrams are buffers for one.
var datagrams = sync.Pool{New: func() any { return new([maxPacket]byte) }}

// receiveFlow moves what the other end sends to the guest, until the flow ends.
func (n *Network) receiveFlow(id stack.TransportEndpointID, f *flow, conn *net.UDPConn) {
	defer n.flows.end(id, f)
	from, to := endpoints(id)
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	var size int
	var b *[maxPacket]byte
	read := func(fd uintptr) bool {
		b = datagrams.Get().(*[maxPacket]byte)
		for {
			if size, err = unix.Read(int(fd), b[:]); err != unix.EINTR {
				break
			}
		}
		if err == unix.EAGAIN {
			datagrams.Put(b)
			return false
		}
		return true
	}
	for raw.Read(read) == nil {
		if err == nil {
			f.touch()
			n.writeUDP(to, from, b[:size])
		}
		datagrams.Put(b)
		if errors.Is(err, unix.ECONNREFUSED) {
			n.writeUnreachable(to.Addr(), from.Addr(), f.quote.Load())
		}
		if err != nil {
			return
		}
	}
}

// writeUDP sends a datagram to the guest.
func (n *Network) writeUDP(src, dst netip.AddrPort, b []byte) {
	size := header.UDPMinimumSize + len(b)
	if size > maxPacket {
		return
	}
	message := append(make([]byte, header.UDPMinimumSize, size), b...)
	n.write(src.Addr(), dst.Addr(), header.UDPProtocolNumber, header.UDPMinimumSize, message, func(r *stack.Route, h []byte) {
		u := header.UDP(h)
		u.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(size)})
		sum := ^u.CalculateChecksum(checksum.Checksum(b, r.PseudoHeaderChecksum(header.UDPProtocolNumber, uint16(size))))
		if sum == 0 {
			sum = 0xffff // RFC 768: 0 would be none
		}
		u.SetChecksum(sum)
	})
}

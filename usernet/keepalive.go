package usernet

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A guest's keepalive (RFC 1122 §4.2.3.6) ends here: netstack answers its probes, and
// the guest would never learn whether the other end is alive. So the kernel probes the
// host's side as the guest does, after the same idle time, which the guest's probes
// show. They do not show how often the guest would repeat an unanswered probe.
//
//	guest --probe--> netstack        kernel --probe--> other end
//	      <--answer-                        <-answer--, or the connection ends

// keepalives watches the guest's segments, and recognizes its probes.
type keepalives struct {
	clock *clock

	mu sync.RWMutex
	by map[pair]*keepalive // guarded by mu
}

// pair is the two ends of a connection: the guest, and the other end as the guest knows
// it.
type pair struct{ guest, other netip.AddrPort }

// keepalive is the keepalive state of one connection.
type keepalive struct {
	g    *guestConn
	host *net.TCPConn

	mu    sync.Mutex
	begun bool          // the guest has sent something; guarded by mu, as is all below
	end   uint32        // the sequence number after all of that
	at    time.Duration // when it last did, in the guest's time
	idle  time.Duration // of the host's side; 0 means hostIdle
}

// leastIdle tells a probe from a retransmitted byte: a guest waits at least a second
// before a probe.
const leastIdle = 700 * time.Millisecond

// add starts watching a connection's segments, from the first on.
func (k *keepalives) add(p pair, g *guestConn, host *net.TCPConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.by[p] = &keepalive{g: g, host: host}
}

func (k *keepalives) remove(p pair) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.by, p)
}

// see takes a packet from the guest, IPv4 or IPv6, TCP or not.
func (k *keepalives) see(packet []byte) {
	var p pair
	var b []byte // TCP header and data
	size := 0    // of b, which is incomplete if the packet is cut
	switch {
	case packet[0]>>4 == 4:
		ip := header.IPv4(packet)
		hl := int(ip.HeaderLength())
		if ip.Protocol() != uint8(header.TCPProtocolNumber) || len(packet) < hl+header.TCPMinimumSize || hl < header.IPv4MinimumSize {
			return
		}
		b, size = packet[hl:], int(ip.TotalLength())-hl
		p.guest, p.other = netip.AddrPortFrom(netip.AddrFrom4([4]byte(packet[12:])), 0), netip.AddrPortFrom(netip.AddrFrom4([4]byte(packet[16:])), 0)
	default:
		ip := header.IPv6(packet)
		if ip.NextHeader() != uint8(header.TCPProtocolNumber) || len(packet) < header.IPv6MinimumSize+header.TCPMinimumSize {
			return
		}
		b, size = packet[header.IPv6MinimumSize:], int(ip.PayloadLength())
		p.guest, p.other = netip.AddrPortFrom(netip.AddrFrom16([16]byte(packet[8:])), 0), netip.AddrPortFrom(netip.AddrFrom16([16]byte(packet[24:])), 0)
	}
	t := header.TCP(b)
	p.guest = netip.AddrPortFrom(p.guest.Addr(), t.SourcePort())
	p.other = netip.AddrPortFrom(p.other.Addr(), t.DestinationPort())
	k.mu.RLock()
	c := k.by[p]
	k.mu.RUnlock()
	if c != nil {
		c.segment(k.clock.now(), binary.BigEndian.Uint32(b[4:]), size-int(t.DataOffset()), t.Flags())
	}
}

// segment takes a segment from the guest: when it came, its sequence number, and its
// number of data bytes.
func (c *keepalive) segment(now time.Duration, seq uint32, size int, flags header.TCPFlags) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first, waited := !c.begun, now-c.at
	c.begun, c.at = true, now
	end := seq + uint32(max(size, 0))
	switch {
	case flags&(header.TCPFlagSyn|header.TCPFlagFin|header.TCPFlagRst) != 0:
		end++
	case !first && size <= 1 && seq == c.end-1 && waited >= leastIdle && !c.g.writing.Load():
		// While the host's side is full, such a segment is a window probe.
		c.probe(waited.Round(time.Second))
	}
	if first || int32(end-c.end) > 0 {
		c.end = end
	}
}

// probe makes the kernel probe the host's side after idle, and at once if that has
// passed.
func (c *keepalive) probe(idle time.Duration) {
	idle = max(idle, time.Second)
	if c.idle != 0 && (idle-c.idle).Abs() <= time.Second {
		return // no change; a timer is never quite on time
	}
	c.idle = idle
	c.host.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle, Interval: min(idle, hostInterval), Count: hostCount})
}

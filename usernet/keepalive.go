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
// whether the other end lives the guest would never know. So the host's side is probed
// as the guest probes: after the time that the guest waits, which its probes tell. How
// often it would repeat one that is not answered they do not tell.
//
//	guest --probe--> netstack        kernel --probe--> other end
//	      <--answer-                        <-answer--, or the connection ends

// keepalives see the guest's segments go by, and know its probes.
type keepalives struct {
	clock *clock

	mu sync.RWMutex
	by map[pair]*keepalive // guarded by mu
}

// pair is who a connection is between: the guest, and the other end as it knows it.
type pair struct{ guest, other netip.AddrPort }

// keepalive is one connection's.
type keepalive struct {
	g    *guestConn
	host *net.TCPConn

	mu    sync.Mutex
	begun bool          // the guest has sent something; guarded by mu, as is all below
	end   uint32        // the sequence number behind all of that
	at    time.Duration // when it last did, of its time
	idle  time.Duration // what the host's side has; 0 is hostIdle
}

// leastIdle tells a probe from a byte that is sent again: a guest waits a second at least.
const leastIdle = 700 * time.Millisecond

// add has a connection's segments looked at, from the first on.
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

// see takes a packet of the guest's, IPv4 or IPv6, of TCP or not.
func (k *keepalives) see(packet []byte) {
	var p pair
	var b []byte // TCP's header, and data
	size := 0    // of b, which is not all there if the packet is cut
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

// segment takes one of the guest's: when it came, its sequence number, and how many
// bytes it has.
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
		// While the host's side is full such a segment asks for room.
		c.probe(waited.Round(time.Second))
	}
	if first || int32(end-c.end) > 0 {
		c.end = end
	}
}

// probe has the host's side be probed after a time, and at once if that has passed.
func (c *keepalive) probe(idle time.Duration) {
	idle = max(idle, time.Second)
	if c.idle != 0 && (idle-c.idle).Abs() <= time.Second {
		return // as it has it; a timer is never quite on time
	}
	c.idle = idle
	c.host.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle, Interval: min(idle, hostInterval), Count: hostCount})
}

package usernet

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"vmm/ethernet"
)

// driver is a minimal guest: one TCP connection with an always open window. It takes
// and makes frames as Linux does with all offloads. It costs next to nothing compared
// with the network.
type driver struct {
	t    testing.TB
	net  *Network
	to   netip.AddrPort
	room [][]byte

	mu       sync.Mutex
	cond     sync.Cond
	ack      uint32 // guarded by mu, as is all below; what the network acknowledged
	window   uint32 // granted by the network from ack on
	scale    int    // of the network's windows
	want     uint32 // next expected sequence number
	received int
	frames   int
	open     bool
}

const (
	driverPort = 1000
	mss        = 1460
	tso        = mss * 44
)

func newDriver(b *testing.B, serve func(*net.TCPConn)) *driver {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			serve(c.(*net.TCPConn))
		}
	}()
	n, err := New(Config{HostLoopback: true})
	if err != nil {
		b.Fatal(err)
	}
	d := &driver{t: b, net: n, room: [][]byte{make([]byte, ethernet.MaxFrame)}, to: netip.AddrPortFrom(Gateway, l.Addr().(*net.TCPAddr).AddrPort().Port())}
	d.cond.L = &d.mu
	n.Configure(ethernet.Mode{Pairs: 1, Offload: allOffloads})
	n.Start(d)
	b.Cleanup(func() { n.Stop(); n.Close() })
	arp := make(header.ARP, header.ARPSize)
	arp.SetIPv4OverEthernet()
	arp.SetOp(header.ARPRequest)
	copy(arp.HardwareAddressSender(), guestMAC[:])
	copy(arp.ProtocolAddressSender(), Guest.AsSlice())
	copy(arp.ProtocolAddressTarget(), Gateway.AsSlice())
	n.Send(0, &ethernet.Header{}, [][]byte{append(append(append([]byte{}, ethernet.Broadcast[:]...), guestMAC[:]...), 8, 6), arp})
	d.segment(header.TCPFlagSyn, 0, nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.open {
		d.cond.Wait()
	}
	return d
}

// segment sends one TCP segment, or one frame with several segments in it.
func (d *driver) segment(flags header.TCPFlags, seq uint32, data []byte) {
	var b [14 + 20 + 24]byte
	size := 20
	if flags&header.TCPFlagSyn != 0 {
		size = 24
		copy(b[54:], []byte{header.TCPOptionWS, 3, 10, header.TCPOptionNOP})
	}
	copy(b[:], GatewayMAC[:])
	copy(b[6:], guestMAC[:])
	b[12] = 8
	header.IPv4(b[14:]).Encode(&header.IPv4Fields{TotalLength: uint16(20 + size + len(data)), TTL: 64, Protocol: 6, SrcAddr: tcpipAddress(Guest), DstAddr: tcpipAddress(d.to.Addr())})
	header.TCP(b[34:]).Encode(&header.TCPFields{SrcPort: driverPort, DstPort: d.to.Port(), SeqNum: seq, AckNum: d.want, DataOffset: uint8(size), Flags: flags, WindowSize: 4096})
	var h ethernet.Header
	gso := byte(ethernet.GSONone)
	if len(data) > mss {
		gso = ethernet.GSOTCPv4
	}
	h.Set(ethernet.NeedsChecksum, gso, 54, mss, 34, 16)
	if err := d.net.Send(0, &h, [][]byte{b[:34+size], data}); err != nil {
		d.t.Error(err)
	}
}

// Readable implements ethernet.Guest.
func (d *driver) Readable(int) bool {
	var h ethernet.Header
	for {
		n, err := d.net.Receive(0, &h, d.room)
		if err != nil {
			return true
		}
		b := d.room[0][:n]
		if n < 54 || b[12] != 8 || b[13] != 0 || b[23] != 6 {
			continue
		}
		ip := header.IPv4(b[14:])
		t := header.TCP(ip.Payload())
		data := len(ip.Payload()) - int(t.DataOffset())
		d.mu.Lock()
		d.frames++
		switch {
		case t.Flags()&header.TCPFlagSyn != 0:
			d.want, d.open = t.SequenceNumber()+1, true
			d.scale = max(header.ParseSynOptions(t.Options(), true).WS, 0)
			d.segment(header.TCPFlagAck, 1, nil)
		case data > 0:
			if t.SequenceNumber() == d.want {
				d.want += uint32(data)
				d.received += data
			}
			d.segment(header.TCPFlagAck, 1, nil)
		}
		d.ack = t.AckNumber()
		d.window = uint32(t.WindowSize())
		if t.Flags()&header.TCPFlagSyn == 0 {
			d.window <<= d.scale
		}
		d.cond.Broadcast()
		d.mu.Unlock()
	}
}

func (*driver) Writable(int) {}

// space waits until the network takes at least that many bytes from seq on, and
// returns how many it takes.
func (d *driver) space(seq uint32, least int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if n := int(int32(d.ack + d.window - seq)); n >= least {
			return n
		}
		d.cond.Wait()
	}
}

func report(b *testing.B, allocs uint64, packets int) {
	b.ReportMetric(float64(b.N)*tso*8/b.Elapsed().Seconds()/1e9, "Gbit/s")
	b.ReportMetric(float64(allocs)/float64(packets), "allocs/packet")
	b.ReportMetric(float64(b.N)*tso/float64(packets), "B/packet")
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// BenchmarkToHost sends packets of 44 segments to a host server.
func BenchmarkToHost(b *testing.B) {
	done := make(chan int64, 1)
	d := newDriver(b, func(c *net.TCPConn) {
		n, _ := io.CopyN(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, int64(b.N)*tso)
		done <- n
	})
	data := pattern(tso)
	b.SetBytes(tso)
	before := mallocs()
	b.ResetTimer()
	seq, packets := uint32(1), 0
	for left := b.N * tso; left > 0; packets++ {
		n := min(d.space(seq, mss), tso, left)
		d.segment(header.TCPFlagAck|header.TCPFlagPsh, seq, data[:n])
		seq, left = seq+uint32(n), left-n
	}
	<-done
	b.StopTimer()
	report(b, mallocs()-before, packets)
}

// BenchmarkFromHost receives what a host server sends.
func BenchmarkFromHost(b *testing.B) {
	start := make(chan struct{})
	d := newDriver(b, func(c *net.TCPConn) {
		<-start
		buf := pattern(256 << 10)
		for left := b.N * tso; left > 0; {
			n, err := c.Write(buf[:min(left, len(buf))])
			if err != nil {
				b.Error(err)
				return
			}
			left -= n
		}
	})
	b.SetBytes(tso)
	before := mallocs()
	d.mu.Lock()
	frames := d.frames
	b.ResetTimer()
	close(start)
	for end := time.Now().Add(time.Minute); d.received < b.N*tso; {
		if time.Now().After(end) {
			b.Fatal("timeout")
		}
		d.cond.Wait()
	}
	b.StopTimer()
	frames = d.frames - frames
	d.mu.Unlock()
	report(b, mallocs()-before, frames)
}

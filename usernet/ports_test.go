package usernet

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// TestPorts: published ports outlive a network. No other process gets them, and the
// next network serves those that connect in between.
func TestPorts(t *testing.T) {
	any := netip.MustParseAddrPort("127.0.0.1:0")
	ports, err := Listen([]Forward{{false, any, 7}, {true, any, 7}})
	if err != nil {
		t.Fatal(err)
	}
	defer ports.Close()
	at := ports.Forwards()
	tcp, udp := at[0].Listen, at[1].Listen
	var waiting net.Conn
	for life := range 3 {
		g := newGuest(t, Config{Ports: ports}, 0, nil)
		l, err := gonet.ListenTCP(g.stack, fullAddress(netip.AddrPortFrom(Guest, 7)), protocol(Guest))
		if err != nil {
			t.Fatal(err)
		}
		here := fullAddress(netip.AddrPortFrom(Guest, 7))
		u, err := gonet.DialUDP(g.stack, &here, nil, protocol(Guest))
		if err != nil {
			t.Fatal(err)
		}
		go echoAll(l, u)
		if waiting == nil {
			waiting = dialHost(t, "tcp", tcp)
		}
		for _, c := range []net.Conn{waiting, dialHost(t, "udp", udp)} {
			want := fmt.Sprintf("life %d", life)
			io.WriteString(c, want)
			b := make([]byte, len(want))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
				t.Errorf("%q, want %q; %v", b, want, err)
			}
		}
		g.close()
		l.Close()
		u.Close()
		for network, a := range map[string]netip.AddrPort{"tcp4": tcp, "udp4": udp} {
			if listenAt(network[:3], a) == nil {
				t.Errorf("%v is free", a)
			}
		}
		waiting = dialHost(t, "tcp", tcp)
	}
	ports.Close()
	if err := listenAt("tcp", tcp); err != nil {
		t.Error(err)
	}
}

func dialHost(t *testing.T, network string, a netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial(network, a.String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(deadline))
	t.Cleanup(func() { c.Close() })
	return c
}

// echoAll echoes one connection, and datagrams.
func echoAll(l net.Listener, u net.PacketConn) {
	go func() {
		if c, err := l.Accept(); err == nil {
			io.Copy(c, c)
		}
	}()
	b := make([]byte, 100)
	for {
		n, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		u.WriteTo(b[:n], from)
	}
}

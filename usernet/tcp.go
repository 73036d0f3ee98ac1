package usernet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A restarted guest does not say that its connections are gone, but answers a probe
// with a reset. The connections of a guest that has suspended itself are kept for two
// hours.
const (
	keepaliveIdle     = 5 * time.Minute
	keepaliveInterval = 10 * time.Minute
	keepaliveCount    = 12
)

// newTCP returns the function that netstack calls for a segment without a connection.
func (n *Network) newTCP() func(stack.TransportEndpointID, *stack.PacketBuffer) bool {
	f := tcp.NewForwarder(n.stack, bufferSize, maxHalfOpen, n.accept)
	return func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
		from, to := endpoints(id)
		if !neighbour(from.Addr()) || to.Addr().IsMulticast() || pkt.PktType != tcpip.PacketHost {
			return true // without an answer
		}
		return f.HandlePacket(id, pkt)
	}
}

// accept connects to the host that the guest wants, and only then answers the guest. It
// runs on its own goroutine.
func (n *Network) accept(r *tcp.ForwarderRequest) {
	defer n.config.Owner.Rescue() // netstack started the goroutine
	if !n.begin() {
		r.Complete(true)
		return
	}
	defer n.end()
	from, to := endpoints(r.ID())
	if isDNS(to.Addr()) && to.Port() == dnsPort {
		n.acceptDNS(r)
		return
	}
	host, err := n.dial(to)
	if err != nil {
		n.log.Debug("user network: a connection of the guest's", "err", err)
		var timeout net.Error
		// If the host got no answer, the guest gets none.
		r.Complete(!errors.As(err, &timeout) || !timeout.Timeout())
		return
	}
	defer n.forget(host)
	g := n.newConn()
	p := pair{from, to}
	n.keepalives.add(p, g, host)
	defer n.keepalives.remove(p)
	if !g.open(r) {
		reset(host)
		return
	}
	n.relay(g, host)
}

// open answers the guest.
func (g *guestConn) open(r *tcp.ForwarderRequest) bool {
	var err tcpip.Error
	g.ep, err = r.CreateEndpoint(&g.queue)
	r.Complete(false)
	return err == nil
}

// begin takes one of the guest's connections, until end. It returns false if none is
// left, and after Close.
func (n *Network) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.connections >= n.bounds.connections {
		return false
	}
	n.connections++
	n.tasks.Add()
	return true
}

func (n *Network) end() {
	n.mu.Lock()
	n.connections--
	n.mu.Unlock()
	n.tasks.Done()
}

var errRefused = errors.New("is not reached from the guest")

// dial connects to the host that the guest means by a.
func (n *Network) dial(a netip.AddrPort) (*net.TCPConn, error) {
	host, ok := n.host(a.Addr())
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(a), Err: errRefused}
	}
	return n.dialHost(netip.AddrPortFrom(host, a.Port()), n.s.dialTimeout)
}

func (n *Network) dialHost(a netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(n.ctx, timeout)
	defer cancel()
	d := net.Dialer{KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil, err
	}
	host := c.(*net.TCPConn)
	begun(host)
	if !n.keep(host) {
		return nil, net.ErrClosed
	}
	return host, nil
}

// bindGuest takes a gateway port, to connect to a guest port from it.
func (n *Network) bindGuest(port uint16) (*guestConn, pair, error) {
	g := n.newConn()
	var err tcpip.Error
	if g.ep, err = n.stack.NewEndpoint(tcp.ProtocolNumber, protocol(Guest), &g.queue); err != nil {
		return nil, pair{}, errors.New(err.String())
	}
	from := tcpip.FullAddress{NIC: nicID, Addr: tcpipAddress(Gateway)}
	if err = g.ep.Bind(from); err == nil {
		from, err = g.ep.GetLocalAddress()
	}
	if err != nil {
		g.ep.Abort()
		return nil, pair{}, errors.New(err.String())
	}
	return g, pair{netip.AddrPortFrom(Guest, port), netip.AddrPortFrom(Gateway, from.Port)}, nil
}

// dial connects to a guest port, or aborts. The timeout is in the guest's time.
func (g *guestConn) dial(to netip.AddrPort, timeout time.Duration) error {
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	g.queue.EventRegister(&entry)
	defer g.queue.EventUnregister(&entry)
	err := g.ep.Connect(tcpip.FullAddress{NIC: nicID, Addr: tcpipAddress(to.Addr()), Port: to.Port()})
	if _, ok := err.(*tcpip.ErrConnectStarted); ok {
		late, stop := g.clock.after(timeout)
		defer stop()
		select {
		case <-ready:
			err = g.ep.LastError()
		case <-late:
			err = &tcpip.ErrTimeout{}
		case <-g.ctx.Done():
			err = &tcpip.ErrTimeout{}
		}
	}
	if err != nil {
		g.ep.Abort()
		return errors.New(err.String())
	}
	return nil
}

// relay copies both ways until both are done or one has failed. It passes a reset on to
// the other side at once, even while that side is full. It waits a while for the guest
// to close its side: what netstack holds for a finished connection must count.
func (n *Network) relay(g *guestConn, host *net.TCPConn) {
	g.setOptions(n.fit(host))
	entry := waiter.NewFunctionEntry(waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) { g.changed(host) })
	g.queue.EventRegister(&entry)
	defer g.queue.EventUnregister(&entry)
	toHost := make(chan struct{})
	g.owner.Go(func() { // ends with g or host, which Close ends
		defer close(toHost)
		if err := g.copyTo(host); err != nil {
			g.ep.Abort()
			reset(host)
			return
		}
		host.CloseWrite()
		host.SetLinger(-1) // data on its way arrives even if this process ends
		g.toHost.Store(true)
		g.changed(host)
	})
	err := g.copyFrom(host)
	if err == nil {
		g.fromHost.Store(true)
		g.ep.Shutdown(tcpip.ShutdownWrite)
		err = g.watch(host, toHost)
	}
	if err != nil {
		g.ep.Abort()
		reset(host)
	}
	<-toHost
	host.Close()
	n.linger(g)
}

// linger waits until the guest has closed the connection too, up to a limit in the
// guest's time.
func (n *Network) linger(g *guestConn) {
	g.ep.Close()
	late, stop := n.clock.after(n.s.lingerTimeout)
	defer stop()
	if !g.wait(late) {
		g.ep.Abort()
	}
}

// RFC 5382 §5 keeps an idle connection alive for at least 2 hours and 4 minutes. After
// that the host's side is probed.
const (
	hostIdle     = 2*time.Hour + 4*time.Minute
	hostInterval = 75 * time.Second
	hostCount    = 9
)

// begun sets up the host's side of a connection. It is reset if this process or the
// guest ends before it: a partial answer must not look complete.
func begun(host *net.TCPConn) {
	host.SetLinger(0)
	host.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: hostIdle, Interval: hostInterval, Count: hostCount})
}

// reset closes a connection with a reset, so that the other end sees an abnormal end.
func reset(host *net.TCPConn) {
	host.SetLinger(0)
	host.Close()
}

// Package usernet is a network in this process, for a guest that shall reach
// what this process reaches: it needs no privilege, and no change of the host.
// It is an ethernet.Link with a router at its far end, gVisor's netstack, which
// ends the guest's connections and opens the same to the host's:
//
//	guest --frames--> Send ---> filter ---> netstack ---> TCP, UDP, ICMP ---> host's sockets
//	guest <--frames-- Receive <-- queue <-- netstack <--- DHCP, DNS, RA
//
// # Addresses
//
// They are those of QEMU's user network. The guest gets Guest by DHCP, from
// GatewayMAC, whatever its own MAC address is. IPv6 is of unique local
// addresses (RFC 4193) by router advertisements, so that a guest prefers IPv4
// where a name has both.
//
//	10.0.2.0/24    fd00:0:0:2::/64
//	10.0.2.2       fd00:0:0:2::2     gateway; the host's 127.0.0.1 and ::1 with Config.HostLoopback
//	10.0.2.3       fd00:0:0:2::3     DNS: the host's resolvers
//	10.0.2.15      by SLAAC          guest
//
// # What a guest reaches
//
// TCP and UDP to whatever this process may connect to, except: 0/8, 127/8,
// 169.254/16, 224/3, ::/96, fe80::/10, ff00::/8, mapped IPv4 addresses, and what is
// left of the guest's network. Only with HostLoopback it reaches the host's loopback
// by the gateway's address, the host's other addresses as they are when it connects,
// and the metadata services of clouds. An IPv6 address with an IPv4 one in it
// (NAT64, 6to4, Teredo, ISATAP) is reached if both are. A firewall on the host sees
// connections of this process.
//
// A connection is opened on the host first: one that is refused there is
// refused to the guest. A datagram's sender and receiver make a flow, which ends
// when nothing came for five minutes; a port of the guest's has one of the host's,
// whatever the peer (see mapping). Echo requests (ping) go through the host's
// unprivileged ICMP sockets, if net.ipv4.ping_group_range allows these to us.
//
// Connections and flows stay while the guest is paused, for which no time passes then
// (see clock): a connection as long as the other end has that patience. They end with
// Close, and are not part of a snapshot.
package usernet

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"vmm/ethernet"
	"vmm/task"
)

// Addresses of the network.
var (
	Subnet  = netip.MustParsePrefix("10.0.2.0/24")
	Gateway = netip.MustParseAddr("10.0.2.2")
	DNS     = netip.MustParseAddr("10.0.2.3")
	Guest   = netip.MustParseAddr("10.0.2.15")

	Subnet6  = netip.MustParsePrefix("fd00:0:0:2::/64")
	Gateway6 = netip.MustParseAddr("fd00:0:0:2::2")
	DNS6     = netip.MustParseAddr("fd00:0:0:2::3")

	// GatewayMAC is that of the gateway and of the DNS server.
	GatewayMAC = ethernet.MAC{0x52, 0x55, 10, 0, 2, 2}
)

// MTU is the largest packet in a frame that is not cut by an offload.
const MTU = 1500

// Bounds on what one guest can have us hold. Config.Descriptors may be less.
const (
	maxConnections = 2048 // of TCP that the guest opens, until it has let go of them
	maxForwarded   = 2048 // of TCP to published ports, likewise
	maxHalfOpen    = 512  // of those the guest opens
	maxMappings    = 1024 // the guest's ports of UDP
	maxFlows       = 8192 // of them, to one peer each
	maxPeers       = 2048 // of a published port of UDP
	maxQueries     = 256  // DNS, not answered yet
	maxEchoes      = 64   // the same
)

// Config says what the network offers.
type Config struct {
	Ports        *Ports       // published ports, which stay the caller's
	Forwards     []Forward    // the same, bound by New and until Close
	HostLoopback bool         // the gateway's address is the host's loopback; its others are reached
	Log          *slog.Logger // nil discards
	Owner        task.Owner   // of its goroutines
	// Descriptors is how many the network may have open, but for Ports; 0 is
	// MaxDescriptors.
	Descriptors int
}

// Forward has a port of the host lead to one of the guest's. The guest sees the
// gateway as the other end.
type Forward struct {
	UDP    bool
	Listen netip.AddrPort // port 0 is any that is free
	Guest  uint16
}

// Network implements ethernet.Link.
type Network struct {
	config Config
	log    *slog.Logger
	s      settings
	bounds bounds
	clock  *clock
	stack  *stack.Stack
	link   *endpoint
	out    *queue

	offload atomic.Uint32 // ethernet.Offload that the guest's driver takes
	dns     resolvers
	flows   flows

	keepalives keepalives

	queries chan struct{} // a token for each that is under way
	echoes  chan struct{} // the same
	routes  *routes
	held    *Ports       // of Config.Forwards
	ports   []*published // of Config.Ports and Forwards
	denied  sync.Once    // says that pings are not allowed to us
	untold  sync.Once    // says that the host does not tell which addresses are its own

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  task.Group // goroutines, added to with mu held

	mu          sync.Mutex
	closed      bool                // guarded by mu, as is all below
	connections int                 // of TCP that the guest opened
	shares      shares              // of TCP to published ports
	sockets     map[socket]struct{} // to be closed by Close
}

// socket is one of the host's.
type socket interface{ Close() error }

// settings is what only tests change.
type settings struct {
	resolvConf    string
	dnsPort       uint16
	dnsTimeout    time.Duration // of all resolvers: less than the 5 s of the guest's
	dnsNext       time.Duration // until the next one is asked
	dnsIdle       time.Duration // of a guest's connection without a query (RFC 7766 §6.2.3); of its time
	dialTimeout   time.Duration // of the guest's time where it is the guest that does not answer
	lingerTimeout time.Duration // of a connection that the guest does not let go of; of the guest's time
	flowTimeout   time.Duration // likewise; RFC 4787 §4.3: not less than 2 minutes, and 5 if in doubt
	advertise     time.Duration // between two unsolicited router advertisements
}

var defaults = settings{
	resolvConf:    "/etc/resolv.conf",
	dnsPort:       53,
	dnsTimeout:    4500 * time.Millisecond,
	dnsNext:       1500 * time.Millisecond,
	dnsIdle:       30 * time.Second,
	dialTimeout:   10 * time.Second,
	lingerTimeout: time.Minute,
	flowTimeout:   5 * time.Minute,
	advertise:     5 * time.Minute,
}

// New returns a network that listens on the host's side of its forwards
// already.
func New(c Config) (*Network, error) { return newNetwork(c, defaults) }

func newNetwork(c Config, s settings) (*Network, error) {
	b := within(c.Descriptors)
	n := &Network{
		config:  c,
		bounds:  b,
		log:     c.Log,
		s:       s,
		clock:   newClock(c.Owner),
		out:     newQueue(),
		queries: make(chan struct{}, b.queries),
		echoes:  make(chan struct{}, b.echoes),
		sockets: map[socket]struct{}{},
		tasks:   task.Group{Owner: c.Owner},
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.dns.path, n.dns.port = s.resolvConf, s.dnsPort
	n.flows.init(n.clock)
	n.keepalives.clock, n.keepalives.by = n.clock, map[pair]*keepalive{}
	n.shares = newShares(b.forwarded)
	var err error
	if n.routes, err = newRoutes(); err != nil {
		n.cancel()
		return nil, fmt.Errorf("user network: which addresses are this host's cannot be asked: %w: allow sockets of AF_NETLINK", err)
	}
	if err := n.newStack(); err != nil {
		n.Close()
		return nil, fmt.Errorf("user network: %w", err)
	}
	if n.held, err = Listen(c.Forwards); err != nil {
		n.Close()
		return nil, err
	}
	for _, p := range []*Ports{c.Ports, n.held} {
		if err := n.forwardAll(p); err != nil {
			n.Close()
			return nil, fmt.Errorf("user network: published ports: %w", err)
		}
	}
	n.start(n.out.pump)
	n.start(n.tick)
	return n, nil
}

// Close ends all connections and goroutines.
func (n *Network) Close() error {
	n.mu.Lock()
	n.closed = true
	sockets := n.sockets
	n.sockets = nil
	n.mu.Unlock()
	n.cancel()
	for s := range sockets {
		s.Close()
	}
	n.flows.closeAll()
	n.routes.close()
	if n.held != nil {
		n.held.Close()
	}
	n.out.close()
	n.clock.start() // for all that ends by it
	done := make(chan struct{})
	n.config.Owner.Go(func() {
		n.tasks.Wait()
		close(done)
	})
	// A handshake that began just now is not among what netstack aborts.
	for retry := time.NewTicker(10 * time.Millisecond); ; {
		if n.stack != nil {
			n.stack.Close()
		}
		select {
		case <-done:
			retry.Stop()
			if n.stack != nil {
				n.stack.RemoveNIC(nicID)
				n.stack.Destroy()
			}
			return nil
		case <-retry.C:
		}
	}
}

// start runs f on a goroutine that Close waits for, and returns false after
// Close.
func (n *Network) start(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.tasks.Go(f)
	return true
}

// keep has Close close s, until forget. After Close it closes s and returns
// false.
func (n *Network) keep(s socket) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		s.Close()
		return false
	}
	n.sockets[s] = struct{}{}
	return true
}

// forget closes s.
func (n *Network) forget(s socket) {
	n.mu.Lock()
	delete(n.sockets, s)
	n.mu.Unlock()
	s.Close()
}

// tick ends what is idle, and advertises the router.
func (n *Network) tick() {
	idle := time.NewTicker(max(n.s.flowTimeout/4, time.Millisecond))
	defer idle.Stop()
	advertise := time.NewTicker(n.s.advertise)
	defer advertise.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-idle.C:
			n.flows.expire(n.s.flowTimeout, n.ports)
		case <-advertise.C:
			n.advertise()
		}
	}
}

// Info implements ethernet.Link.
func (*Network) Info() ethernet.Info {
	return ethernet.Info{Pairs: 1, MTU: MTU, Offload: ethernet.Checksum | ethernet.TSO4 | ethernet.TSO6}
}

// Configure implements ethernet.Link. It holds for connections that exist too:
// what the driver does not take is done to frames on their way out.
func (n *Network) Configure(m ethernet.Mode) error {
	n.offload.Store(uint32(m.Offload))
	return nil
}

// Start implements ethernet.Link.
func (n *Network) Start(g ethernet.Guest) error {
	n.clock.start()
	n.out.start(g)
	return nil
}

// Stop implements ethernet.Link. Connections stay, and time stands still for them.
func (n *Network) Stop() {
	n.out.stop()
	n.clock.stop()
}

// Discard implements ethernet.Link. Connections send again what is lost, to a driver
// that may never come.
func (n *Network) Discard() {
	n.out.discard()
	n.clock.start()
}

// Resume implements ethernet.Link.
func (n *Network) Resume(int) { n.out.resume() }

// Receive implements ethernet.Link.
func (n *Network) Receive(_ int, h *ethernet.Header, bufs [][]byte) (int, error) {
	return n.out.receive(h, bufs, ethernet.Offload(n.offload.Load()))
}

// Forwarded returns the forwards with the ports that they listen on.
func (n *Network) Forwarded() (list []Forward) {
	for _, p := range n.ports {
		list = append(list, p.Forward)
	}
	return list
}

var _ ethernet.Link = (*Network)(nil)

// pause waits a little before something is tried again, and returns false after
// Close.
func (n *Network) pause() bool {
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-n.ctx.Done():
		return false
	}
}

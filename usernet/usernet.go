// Package usernet is a network in this process, for a guest that should reach what this
// process reaches. It needs no privilege, and no change of the host. It is an
// ethernet.Link with a router at its far end: gVisor's netstack, which terminates the
// guest's connections and opens host connections for them:
//
//	guest --frames--> Send ---> filter ---> netstack ---> TCP, UDP, ICMP ---> host's sockets
//	guest <--frames-- Receive <-- queue <-- netstack <--- DHCP, DNS, RA
//
// # Addresses
//
// The addresses are those of QEMU's user network. The guest gets Guest by DHCP, from
// GatewayMAC, whatever its own MAC address is. IPv6 addresses are unique local (RFC
// 4193), from router advertisements, so a guest prefers IPv4 where a name has both.
//
//	10.0.2.0/24    fd00:0:0:2::/64
//	10.0.2.2       fd00:0:0:2::2     gateway; the host's 127.0.0.1 and ::1 with Config.HostLoopback
//	10.0.2.3       fd00:0:0:2::3     DNS: the host's resolvers
//	10.0.2.15      by SLAAC          guest
//
// # What a guest reaches
//
// TCP and UDP to all that this process may connect to, except: 0/8, 127/8, 169.254/16,
// 224/3, ::/96, fe80::/10, ff00::/8, mapped IPv4 addresses, and the rest of the guest's
// network. Only with HostLoopback does it reach the host's loopback by the gateway's
// address, the host's other addresses at the time of connecting, and the metadata
// services of clouds. An IPv6 address that embeds an IPv4 address (NAT64, 6to4, Teredo,
// ISATAP) is reached if both are. A host firewall sees connections of this process.
//
// A connection is opened on the host first: one that is refused there is refused to the
// guest. A datagram's sender and receiver make a flow, which ends after five minutes of
// silence. A guest port has one host port, for all peers (see mapping). Echo requests
// (ping) go through the host's unprivileged ICMP sockets, if net.ipv4.ping_group_range
// allows them.
//
// Connections and flows survive a pause of the guest, during which its time stands
// still (see clock): a connection as long as the other end waits. They end with Close,
// and are not part of a snapshot.
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

	// GatewayMAC is the MAC address of the gateway and of the DNS server.
	GatewayMAC = ethernet.MAC{0x52, 0x55, 10, 0, 2, 2}
)

// MTU is the largest packet in a frame without segmentation offload.
const MTU = 1500

// Bounds on what one guest can make us hold. Config.Descriptors may lower them.
const (
	maxConnections = 2048 // TCP, opened by the guest, until it has closed them
	maxForwarded   = 2048 // TCP to published ports, likewise
	maxHalfOpen    = 512  // of those that the guest opens
	maxMappings    = 1024 // the guest's UDP ports
	maxFlows       = 8192 // of the mappings, to one peer each
	maxPeers       = 2048 // of a published UDP port
	maxQueries     = 256  // DNS, unanswered
	maxEchoes      = 64   // ping, unanswered
)

// Config says what the network offers.
type Config struct {
	Ports        *Ports       // published ports; the caller owns them
	Forwards     []Forward    // more published ports, bound from New to Close
	HostLoopback bool         // the gateway's address is the host's loopback; the host's other addresses are reached
	Log          *slog.Logger // nil discards
	Owner        task.Owner   // of the network's goroutines
	// Descriptors is how many the network may have open, not counting Ports; 0 means
	// MaxDescriptors.
	Descriptors int
}

// Forward makes a host port lead to a guest port. The guest sees the gateway as the
// other end.
type Forward struct {
	UDP    bool
	Listen netip.AddrPort // port 0 means any free port
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

	queries chan struct{} // a token for each in progress
	echoes  chan struct{} // likewise
	routes  *routes
	held    *Ports       // of Config.Forwards
	ports   []*published // of Config.Ports and Forwards
	denied  sync.Once    // logs that pings are not allowed
	untold  sync.Once    // logs that the host does not tell which addresses are its own

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  task.Group // goroutines, added to with mu held

	mu          sync.Mutex
	closed      bool                // guarded by mu, as is all below
	connections int                 // TCP, opened by the guest
	shares      shares              // TCP to published ports
	sockets     map[socket]struct{} // to be closed by Close
}

// socket is a host socket.
type socket interface{ Close() error }

// settings are what only tests change.
type settings struct {
	resolvConf    string
	dnsPort       uint16
	dnsTimeout    time.Duration // of all resolvers: less than the guest's 5 s
	dnsNext       time.Duration // until the next one is asked
	dnsIdle       time.Duration // of a guest connection without a query (RFC 7766 §6.2.3), in the guest's time
	dialTimeout   time.Duration // in the guest's time if it is the guest that does not answer
	lingerTimeout time.Duration // of a connection that the guest does not close, in the guest's time
	flowTimeout   time.Duration // in the guest's time; RFC 4787 §4.3: at least 2 minutes, 5 recommended
	advertise     time.Duration // between unsolicited router advertisements
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

// New returns a network that already listens on its forwarded host ports.
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
	n.clock.start() // so that all that waits for it ends
	done := make(chan struct{})
	n.config.Owner.Go(func() {
		n.tasks.Wait()
		close(done)
	})
	// Netstack does not abort a handshake that has just begun, so retry.
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

// keep makes Close close s, until forget. After Close it closes s and returns false.
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

// tick ends idle flows, and advertises the router.
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

// Configure implements ethernet.Link. It applies to existing connections too: frames
// are cut and summed on their way out for what the driver does not take.
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

// Stop implements ethernet.Link. Connections stay, and their time stands still.
func (n *Network) Stop() {
	n.out.stop()
	n.clock.stop()
}

// Discard implements ethernet.Link. The clock runs again: connections retransmit to a
// driver that may never come.
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

// pause waits a little before a retry, and returns false after Close.
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

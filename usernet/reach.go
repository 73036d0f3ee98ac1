package usernet

import "net/netip"

// never lists what no guest reaches on the host's side. Some of these are other names
// of this host's loopback: 0.0.0.0, ::, ::ffff:127.0.0.1.
var never = prefixes(
	"0.0.0.0/8",
	"127.0.0.0/8",
	"169.254.0.0/16", // among them the metadata services of most clouds
	"224.0.0.0/3",
	"::/96",
	"::ffff:0:0/96",
	"fe80::/10",
	"ff00::/8",
	Subnet.String(),
	Subnet6.String(),
)

// clouds lists the metadata services that have no link-local address. They trust any
// client that reaches them as this host, and tell it the host's secrets.
var clouds = prefixes(
	"100.100.100.200/32", // Alibaba Cloud
	"168.63.129.16/32",   // Azure
	"192.0.0.192/32",     // Oracle Cloud
	"fd00:ec2::/32",      // AWS: ::254, EKS's ::23, and other services of the instance
	"fd20:ce::/64",       // Google Cloud: ::254
	"fd00:42::42/128",    // Scaleway
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// in reports whether a is in one of the networks. Contains does not match IPv4-mapped
// IPv6 addresses with IPv4 prefixes.
func in(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// host returns the host-side address that the guest means by dst, and false for one
// that the guest does not reach. It asks the kernel, so call it for each connection or
// flow, not for each packet.
func (n *Network) host(dst netip.Addr) (netip.Addr, bool) {
	if n.config.HostLoopback {
		switch dst {
		case Gateway:
			return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
		case Gateway6:
			return netip.IPv6Loopback(), true
		}
	}
	return dst, n.reaches(dst)
}

func (n *Network) reaches(dst netip.Addr) bool {
	if in(never, dst) {
		return false
	}
	if !n.config.HostLoopback && (in(clouds, dst) || n.own(dst)) {
		return false
	}
	for _, a := range embedded(dst) {
		if !n.reaches(a) {
			return false
		}
	}
	return true
}

// own reports whether an address is this host's. If the kernel does not say, it counts
// as one.
func (n *Network) own(a netip.Addr) bool {
	own, err := n.routes.own(a)
	if err != nil && n.ctx.Err() == nil {
		n.untold.Do(func() {
			n.log.Warn("user network: the kernel does not say whether an address is this host's; the guest does not reach it", "address", a, "err", err)
		})
	}
	return own || err != nil
}

// Prefixes of IPv6 addresses that a translator or a tunnel, perhaps on this host,
// converts to IPv4 addresses.
var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052 §2.1
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	siit       = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765 §2.1
	sixToFour  = netip.MustParsePrefix("2002::/16")       // RFC 3056 §2
	teredo     = netip.MustParsePrefix("2001::/32")       // RFC 4380 §4
	isatap     = [4]byte{0, 0, 0x5e, 0xfe}                // RFC 5214 §6.1, the start of the interface identifier
	isatap2    = [4]byte{2, 0, 0x5e, 0xfe}                // the same, for a global address
	thisHost   = netip.MustParsePrefix("0.0.0.0/8")       // RFC 791 §3.2
)

// embedded returns the IPv4 addresses that an IPv6 address may stand for.
func embedded(a netip.Addr) (list []netip.Addr) {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	last := netip.AddrFrom4([4]byte(b[12:]))
	switch {
	case nat64.Contains(a), siit.Contains(a):
		return append(list, last)
	case nat64Local.Contains(a):
		// An operator may use any prefix within this one (RFC 6052 §2.2), so the
		// address may be in four places. 0.0.0.0/8 is not a real address, so it is in
		// another place: no translator accepts it.
		for _, p := range [][4]byte{{b[6], b[7], b[9], b[10]}, {b[7], b[9], b[10], b[11]}, {b[9], b[10], b[11], b[12]}, last.As4()} {
			if v4 := netip.AddrFrom4(p); !thisHost.Contains(v4) {
				list = append(list, v4)
			}
		}
		return list
	case sixToFour.Contains(a):
		return append(list, netip.AddrFrom4([4]byte(b[2:])))
	case teredo.Contains(a): // the client's address is stored inverted
		return append(list, netip.AddrFrom4([4]byte(b[4:])), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
	}
	if id := [4]byte(b[8:]); id == isatap || id == isatap2 {
		return append(list, last)
	}
	return nil
}

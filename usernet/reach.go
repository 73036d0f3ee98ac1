package usernet

import "net/netip"

// never is what no guest reaches on the host's side. Some of these are other
// names of this host's loopback: 0.0.0.0, ::, ::ffff:127.0.0.1.
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

// clouds are the metadata services that have no link-local address. They take
// whoever reaches them for this host, and tell it the host's secrets.
var clouds = prefixes(
	"100.100.100.200/32", // Alibaba Cloud
	"168.63.129.16/32",   // Azure
	"192.0.0.192/32",     // Oracle Cloud
	"fd00:ec2::/32",      // AWS: ::254, EKS's ::23, and what else is of the instance
	"fd20:ce::/64",       // Google Cloud: ::254
	"fd00:42::42/128",    // Scaleway
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// in reports whether a is of one of the networks. Contains tells IPv4 addresses in
// IPv6 from those that are not.
func in(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// host returns which address of the host's side the guest means by dst, and
// false for one that it does not reach. It asks the kernel: it is for connections
// and flows, not for packets.
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

// own reports whether an address is this host's. One that cannot be told is.
func (n *Network) own(a netip.Addr) bool {
	own, err := n.routes.own(a)
	if err != nil && n.ctx.Err() == nil {
		n.untold.Do(func() {
			n.log.Warn("user network: the kernel does not say whether an address is this host's; the guest does not reach it", "address", a, "err", err)
		})
	}
	return own || err != nil
}

// Prefixes of IPv6 addresses that a translator or a tunnel, on this host perhaps,
// makes IPv4 addresses of.
var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052 §2.1
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215
	siit       = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765 §2.1
	sixToFour  = netip.MustParsePrefix("2002::/16")       // RFC 3056 §2
	teredo     = netip.MustParsePrefix("2001::/32")       // RFC 4380 §4
	isatap     = [4]byte{0, 0, 0x5e, 0xfe}                // RFC 5214 §6.1, the first of an interface's identifier
	isatap2    = [4]byte{2, 0, 0x5e, 0xfe}                // the same, of a global address
	thisHost   = netip.MustParsePrefix("0.0.0.0/8")       // RFC 791 §3.2
)

// embedded returns the IPv4 addresses that may be meant by an IPv6 address.
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
		// An operator may have any prefix in this one (RFC 6052 §2.2), so there are
		// four places. What is 0 there is in another: no translator takes it.
		for _, p := range [][4]byte{{b[6], b[7], b[9], b[10]}, {b[7], b[9], b[10], b[11]}, {b[9], b[10], b[11], b[12]}, last.As4()} {
			if v4 := netip.AddrFrom4(p); !thisHost.Contains(v4) {
				list = append(list, v4)
			}
		}
		return list
	case sixToFour.Contains(a):
		return append(list, netip.AddrFrom4([4]byte(b[2:])))
	case teredo.Contains(a): // the client's is hidden by its complement
		return append(list, netip.AddrFrom4([4]byte(b[4:])), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
	}
	if id := [4]byte(b[8:]); id == isatap || id == isatap2 {
		return append(list, last)
	}
	return nil
}

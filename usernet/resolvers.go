package usernet

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// resolvers are those of resolv.conf(5), which is read again when it changes: a host
// may move to another network.
type resolvers struct {
	path string
	port uint16

	mu    sync.Mutex
	of    version                      // of the file; guarded by mu, as is all below
	conf  *resolvConf                  // nil: not read yet
	quiet map[netip.AddrPort]time.Time // resolvers that have been silent, and until when they are asked last
}

// version tells whether a file has changed, even if it was replaced within a second.
type version struct {
	dev, ino uint64
	size     int64
	modified time.Time
	changed  syscall.Timespec
}

func versionOf(info os.FileInfo) version {
	v := version{size: info.Size(), modified: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		v.dev, v.ino, v.changed = st.Dev, st.Ino, st.Ctim
	}
	return v
}

// quietTime is how long a resolver that did not answer is asked last. After that it is
// asked along with another, and once it answers it is first again: it alone may know a
// network's own names.
const quietTime = 30 * time.Second

// read returns what the file says now. mu is held.
func (r *resolvers) read() *resolvConf {
	info, err := os.Stat(r.path)
	if err == nil && r.conf != nil && versionOf(info) == r.of {
		return r.conf
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(r.path)
	}
	switch {
	case err == nil:
		r.of = versionOf(info)
	case r.conf != nil:
		return r.conf // it may just be being replaced
	}
	name, _ := os.Hostname()
	r.conf, r.quiet = parseResolvConf(string(text), name, r.port), map[netip.AddrPort]time.Time{}
	return r.conf
}

// servers returns the resolvers in the order to ask them, which is that of libc except
// that silent ones come last, and how many to ask at once.
func (r *resolvers) servers() (list []netip.AddrPort, first int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list = slices.Clone(r.read().servers)
	now := time.Now()
	slices.SortStableFunc(list, func(a, b netip.AddrPort) int { return r.rank(a, now) - r.rank(b, now) })
	if len(list) > 1 && r.rank(list[0], now) == 0 && r.rank(list[1], now) == 1 {
		return list, 2
	}
	return list, 1
}

// rank is 0 for a resolver that answers, 1 for a silent one that is due for another
// try, and 2 for one that was silent recently.
func (r *resolvers) rank(a netip.AddrPort, now time.Time) int {
	until, silent := r.quiet[a]
	switch {
	case !silent:
		return 0
	case now.Before(until):
		return 2
	}
	return 1
}

// areSilent reports whether all these resolvers were already silent.
func (r *resolvers) areSilent(asked map[netip.AddrPort]bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a := range asked {
		if _, silent := r.quiet[a]; !silent {
			return false
		}
	}
	return true
}

// search returns the host's search domains.
func (r *resolvers) search() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read().search
}

// silent notes that a resolver did not answer, heard that it did.
func (r *resolvers) silent(a netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conf != nil && slices.Contains(r.conf.servers, a) {
		r.quiet[a] = time.Now().Add(quietTime)
	}
}

func (r *resolvers) heard(a netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.quiet, a)
}

// resolvConf is what a resolv.conf says.
type resolvConf struct {
	servers []netip.AddrPort
	search  []string // domains, without a dot at the end
}

// parseResolvConf returns the first three servers in a resolv.conf, or this host if
// there are none, and the domains of the last line that has some, or the domain of this
// host's name if there is none.
func parseResolvConf(text, hostname string, port uint16) *resolvConf {
	c := &resolvConf{}
	_, domain, _ := strings.Cut(hostname, ".")
	search := []string{domain}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil && len(c.servers) < maxServers {
				c.servers = append(c.servers, netip.AddrPortFrom(a, port))
			}
		case "domain":
			search = f[1:2]
		case "search":
			search = f[1:]
		}
	}
	if c.servers == nil {
		c.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	}
	for _, d := range search {
		if d = strings.TrimSuffix(d, "."); isDomain(d) && !slices.Contains(c.search, d) {
			c.search = append(c.search, d)
		}
	}
	return c
}

// isDomain reports whether a domain can be given to the guest: its labels consist of
// letters, digits, - and _, and are short enough (RFC 1035 §2.3.4). The root is
// excluded: it means an empty search list.
func isDomain(s string) bool {
	if len(s) == 0 || len(s)+2 > maxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > maxLabel {
			return false
		}
		for _, c := range []byte(label) {
			if l := lower(c); (l < 'a' || l > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// appendDomains appends the first domains, as many as fit in room bytes, in DNS
// encoding (RFC 1035 §3.1).
func appendDomains(b []byte, domains []string, room int) []byte {
	end := len(b) + room
	for _, d := range domains {
		if len(b)+len(d)+2 > end {
			break
		}
		for label := range strings.SplitSeq(d, ".") {
			b = append(append(b, byte(len(label))), label...)
		}
		b = append(b, 0)
	}
	return b
}

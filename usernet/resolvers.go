package usernet

import (
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// resolvers are those of resolv.conf(5), which is read again when it changes: a
// host moves from one network to another.
type resolvers struct {
	path string
	port uint16

	mu       sync.Mutex
	modified time.Time // guarded by mu, as is all below; what list is of
	size     int64
	list     []netip.AddrPort // nil: not read yet
}

// servers returns them, as libc would ask them.
func (r *resolvers) servers() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(r.path)
	if err == nil && r.list != nil && info.ModTime().Equal(r.modified) && info.Size() == r.size {
		return r.list
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(r.path)
		r.modified, r.size = info.ModTime(), info.Size()
	}
	if err != nil && r.list != nil {
		return r.list // it is just being replaced, perhaps
	}
	r.list = parseResolvConf(string(text), r.port)
	return r.list
}

// parseResolvConf returns the servers in a resolv.conf: the first three, or if
// there are none, this host.
func parseResolvConf(text string, port uint16) (list []netip.AddrPort) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(list) == maxServers {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a, port))
		}
	}
	if list == nil {
		list = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	}
	return list
}

package usernet

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// routes asks the kernel where packets to an address would go: rtnetlink(7). The kernel
// knows the current addresses of all interfaces.
type routes struct {
	mu  sync.Mutex
	fd  int    // guarded by mu, as is all below; -1 after close
	seq uint32 // of the last request
}

// routeTimeout bounds the wait for the kernel's answer, which is ready once the request
// was sent.
const routeTimeout = time.Second

func newRoutes() (*routes, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	t := unix.NsecToTimeval(int64(routeTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &routes{fd: fd}, nil
}

func (r *routes) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd >= 0 {
		unix.Close(r.fd)
	}
	r.fd = -1
}

// own reports whether a is this host's: an address of one of its interfaces, or a
// broadcast, anycast or multicast address. An unreachable address is not: connect(2)
// will fail.
func (r *routes) own(a netip.Addr) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	if err := unix.Sendto(r.fd, routeRequest(r.seq, a), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	var b [1024]byte
	for {
		n, from, err := unix.Recvfrom(r.fd, b[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, err
		}
		if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != 0 {
			continue // not the kernel
		}
		if kind, ok := routeKind(b[:n], r.seq); ok {
			return kind == unix.RTN_LOCAL || kind == unix.RTN_BROADCAST || kind == unix.RTN_ANYCAST || kind == unix.RTN_MULTICAST, nil
		}
	}
}

// routeRequest returns an RTM_GETROUTE: struct nlmsghdr, struct rtmsg, and one
// attribute, RTA_DST.
func routeRequest(seq uint32, a netip.Addr) []byte {
	family, dst := unix.AF_INET6, a.AsSlice()
	if a.Is4() {
		family = unix.AF_INET
	}
	ne := binary.NativeEndian
	size := unix.SizeofNlMsghdr + unix.SizeofRtMsg + unix.SizeofRtAttr + len(dst)
	b := ne.AppendUint32(make([]byte, 0, size), uint32(size))
	b = ne.AppendUint16(b, unix.RTM_GETROUTE)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST)
	b = ne.AppendUint32(b, seq)
	b = ne.AppendUint32(b, 0) // our port, which the kernel knows
	b = append(b, byte(family), byte(a.BitLen()), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = ne.AppendUint16(b, uint16(unix.SizeofRtAttr+len(dst)))
	b = ne.AppendUint16(b, unix.RTA_DST)
	return append(b, dst...)
}

// routeKind returns the rtm_type in the answer to a request, RTN_UNSPEC if the answer
// is an error, and false if b is not an answer to it.
func routeKind(b []byte, seq uint32) (kind byte, ok bool) {
	const rtmType = unix.SizeofNlMsghdr + 7
	ne := binary.NativeEndian
	if len(b) <= rtmType || ne.Uint32(b[8:]) != seq {
		return 0, false
	}
	switch ne.Uint16(b[4:]) {
	case unix.RTM_NEWROUTE:
		return b[rtmType], true
	case unix.NLMSG_ERROR:
		return unix.RTN_UNSPEC, true
	}
	return 0, false
}

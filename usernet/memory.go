package usernet

import "net"

// The host kernel's buffers of a connection grow to what net.ipv4.tcp_rmem and tcp_wmem
// allow, usually 10 MiB in all, if the other end or a guest sends and does not receive.
// Only a path of high bandwidth and delay needs that, so only the first few connections
// have it. Each other has buffers of these sizes each way, doubled for the kernel's own
// use: below 1 GiB for all together, including the first few.
const (
	fewConnections   = 32
	middleHostBuffer = 256 << 10 // up to manyConnections
	smallHostBuffer  = 32 << 10
)

// fit bounds the host kernel's buffers of a connection by the number of connections. It
// reports whether there are so many that our own buffers must be small too.
func (n *Network) fit(host *net.TCPConn) (many bool) {
	n.mu.Lock()
	count := n.connections + n.shares.held
	n.mu.Unlock()
	size := smallHostBuffer
	switch {
	case count <= fewConnections:
		return false
	case count <= manyConnections:
		size = middleHostBuffer
	}
	host.SetReadBuffer(size) // fails only if the connection has ended
	host.SetWriteBuffer(size)
	return count > manyConnections
}

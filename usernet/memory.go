package usernet

import "net"

// What the host's kernel holds of a connection grows by itself to what
// net.ipv4.tcp_rmem and tcp_wmem allow, 10 MiB in all as a rule, if the other end
// sends and does not take, or a guest does. So only the first few have that, which
// takes a path of a high bandwidth and delay; each other has buffers of these sizes
// each way, twice for the kernel's own use: below 1 GiB for all together, with those.
const (
	fewConnections   = 32
	middleHostBuffer = 256 << 10 // up to manyConnections
	smallHostBuffer  = 32 << 10
)

// fit bounds what the host's kernel holds of a connection by how many there are, and
// returns whether these are so many that we hold less as well.
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
	host.SetReadBuffer(size) // if it fails the connection has ended
	host.SetWriteBuffer(size)
	return count > manyConnections
}

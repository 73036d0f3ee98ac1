package vsock

import "vmm/stream"

// Call implements stream.Guest. It runs on a host goroutine.
func (d *Device) Call(host stream.Conn, port uint32) stream.Watcher {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.driven || d.count >= MaxConns {
		return nil
	}
	c := d.newConn(d.nextKey(port), calling)
	c.host = host
	c.startTimer(requestLimit)
	d.ready.add(c)
	d.continues(d.move(hostTurns))
	return c
}

// nextKey returns ports that no connection has. There are more ports than
// connections.
func (d *Device) nextKey(port uint32) key {
	for {
		if d.port++; d.port < firstPort || d.port == 1<<32-1 { // VMADDR_PORT_ANY
			d.port = firstPort
		}
		k := key{d.port, port}
		if d.conns[k] == nil {
			return k
		}
	}
}

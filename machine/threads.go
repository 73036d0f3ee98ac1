package machine

import (
	"runtime"
	"sync/atomic"
)

// blocking counts the goroutines of all running machines that wait in the
// kernel: in KVM_RUN, for a doorbell, for a tap.
//
// Each of them keeps one of Go's processors for up to 10 ms after it began to
// wait. If there is none left, one that has waited enough cannot go on before
// the runtime's monitor takes one away from another, and the monitor, which
// then has much to do, takes up to a fifth of a processor for itself in the lab. So there are
// more of them than can wait.
var blocking atomic.Int64

// spare is how many processors there are for all other goroutines.
const spare = 2

// reserve makes room for n more goroutines that wait in the kernel; free gives
// it back.
func reserve(n int) (free func()) {
	if want := int(blocking.Add(int64(n))) + spare; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
	return func() { blocking.Add(-int64(n)) }
}

// waiters is how many goroutines of m wait in the kernel.
func (m *Machine) waiters() int {
	n := len(m.vcpus) + m.devices.queues
	for _, c := range m.config.Nets {
		n += max(c.Queues, 1) // a tap's watcher
	}
	if m.config.Vsock != nil {
		n++ // who waits for its sockets
	}
	return n
}

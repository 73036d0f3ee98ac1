package machine

import (
	"runtime"
	"sync/atomic"
)

// blocking counts the goroutines of all running machines that wait in the kernel: in
// KVM_RUN, for a doorbell, for a tap.
//
// Each of them keeps one of Go's processors (Ps) for up to 10 ms after its wait began.
// If none is left, a goroutine whose wait is over cannot continue before the runtime's
// monitor takes a processor from another one. The monitor is then busy, and uses up to
// a fifth of a CPU in the lab. So we keep more processors than goroutines that can
// wait.
var blocking atomic.Int64

// spare is the number of processors for all other goroutines.
const spare = 2

// reserve makes room for n more goroutines that wait in the kernel; free gives it
// back.
func reserve(n int) (free func()) {
	if want := int(blocking.Add(int64(n))) + spare; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
	return func() { blocking.Add(-int64(n)) }
}

// waiters is the number of goroutines of m that wait in the kernel.
func (m *Machine) waiters() int {
	n := len(m.vcpus) + m.devices.queues
	for _, c := range m.config.Nets {
		n += max(c.Queues, 1) // a tap's watcher
	}
	if m.config.Vsock != nil {
		n++ // the one that waits for its sockets
	}
	return n
}

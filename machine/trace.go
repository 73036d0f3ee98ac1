package machine

import (
	"sync/atomic"
	"time"

	"vmm/kvm"
)

// An Exit is one exit of a vCPU to this program, as a trace shows it.
type Exit struct {
	Time   time.Time
	CPU    int
	Reason string
	Addr   uint64 `json:",omitempty"` // a port or a guest physical address
	Size   int    `json:",omitempty"`
	Count  int    `json:",omitempty"` // of REP INS and OUTS; otherwise 1
	Write  bool   `json:",omitempty"`
	Data   uint64 `json:",omitempty"` // of a write, its first element
	Lost   uint64 `json:",omitempty"` // exits before this one for which there was no room
}

// traceRoom is how many exits wait for a reader that is slow.
const traceRoom = 4096

// trace is what all vCPUs send their exits to.
type trace struct {
	exits chan Exit
	lost  atomic.Uint64
}

// add is called on a vCPU's thread, which does not wait.
func (t *trace) add(cpu int, e kvm.Exit) {
	x := Exit{Time: time.Now(), CPU: cpu, Reason: e.Reason.String(), Addr: e.Addr, Size: e.Size, Write: e.Write}
	if e.Size > 0 {
		x.Count = len(e.Data) / e.Size
	}
	if e.Write {
		for i := min(e.Size, len(e.Data), 8) - 1; i >= 0; i-- {
			x.Data = x.Data<<8 | uint64(e.Data[i])
		}
	}
	x.Lost = t.lost.Swap(0)
	select {
	case t.exits <- x:
	default:
		t.lost.Add(x.Lost + 1)
	}
}

// Trace sends all exits from now on to the channel that it returns, until stop is
// called. What a slow reader leaves no room for is lost, and counted in the next.
// Only one trace can be taken at a time.
func (m *Machine) Trace() (exits <-chan Exit, stop func(), err error) {
	t := &trace{exits: make(chan Exit, traceRoom)}
	if !m.tracing.CompareAndSwap(nil, t) {
		return nil, nil, &StateError{"being traced by another"}
	}
	return t.exits, func() { m.tracing.Store(nil) }, nil
}

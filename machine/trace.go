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
	Count  int    `json:",omitempty"` // for REP INS and OUTS; otherwise 1
	Write  bool   `json:",omitempty"`
	Data   uint64 `json:",omitempty"` // for a write, its first element
	Lost   uint64 `json:",omitempty"` // exits dropped before this one for lack of room
}

// traceRoom is how many exits can wait for a slow reader.
const traceRoom = 4096

// trace is where all vCPUs send their exits.
type trace struct {
	exits chan Exit
	lost  atomic.Uint64
}

// add is called on a vCPU's thread and never waits.
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

// Trace sends all exits from now on to the returned channel, until stop is called.
// Exits that a slow reader leaves no room for are lost, and counted in the next one.
// Only one trace can run at a time.
func (m *Machine) Trace() (exits <-chan Exit, stop func(), err error) {
	t := &trace{exits: make(chan Exit, traceRoom)}
	if !m.tracing.CompareAndSwap(nil, t) {
		return nil, nil, &StateError{"being traced by another"}
	}
	return t.exits, func() { m.tracing.Store(nil) }, nil
}

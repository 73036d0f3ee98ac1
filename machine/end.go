package machine

import "fmt"

// End is how a guest ended.
type End struct {
	Reason Reason
	Code   uint32 // of DebugExit: what the guest wrote
}

// Reason is why a guest ended.
type Reason int

const (
	PowerOff    Reason = iota // the guest turned itself off (ACPI S5)
	Reset                     // the guest asked for a reset
	TripleFault               // a fault that the guest could not handle: a reset on hardware
	Panic                     // the guest's kernel reported a panic (pvpanic)
	DebugExit                 // the guest wrote to the debug-exit port
	Stopped                   // the context of Run was cancelled
)

var reasonText = [...]string{"power off", "reset", "triple fault", "guest panic", "debug exit", "stopped"}

func (r Reason) String() string {
	if r < 0 || int(r) >= len(reasonText) {
		return fmt.Sprintf("reason %d", int(r))
	}
	return reasonText[r]
}

func (e End) String() string {
	if e.Reason == DebugExit {
		return fmt.Sprintf("%s with code %d", e.Reason, e.Code)
	}
	return e.Reason.String()
}

// endError carries an End out of a vCPU's loop.
type endError struct{ end End }

func (e *endError) Error() string { return e.end.String() }

// StateError says that the machine is in the wrong state for a call.
type StateError struct{ State string }

func (e *StateError) Error() string { return "the machine is " + e.State }

// ErrEnded is the StateError of a machine whose guest has ended; the guest's last
// output may still be on its way.
var ErrEnded = &StateError{stateText[ended]}

package service

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"vmm/machine"
)

// Policy says whether a guest that has ended is started again. A guest that was
// stopped on request never is.
type Policy struct {
	Reboot  bool // after a reset requested by the guest
	Failure bool // after any end but a power-off
	Always  bool // after any end
	Most    int  // failures in a row; 0 means no limit
}

// ParsePolicy reads no, on-failure[:N] or always.
func ParsePolicy(s string) (p Policy, err error) {
	word, most, counted := strings.Cut(s, ":")
	switch {
	case s == "no":
	case s == "always":
		p.Always = true
	case word == "on-failure" && counted:
		if p.Most, err = strconv.Atoi(most); err != nil || p.Most < 1 {
			return p, fmt.Errorf("must be a number of restarts from 1 on, such as on-failure:3")
		}
		fallthrough
	case s == "on-failure":
		p.Failure = true
	default:
		return p, fmt.Errorf("must be no, on-failure, on-failure:N or always")
	}
	return p, nil
}

// String is what ParsePolicy reads.
func (p Policy) String() string {
	switch {
	case p.Always:
		return "always"
	case p.Failure && p.Most > 0:
		return fmt.Sprintf("on-failure:%d", p.Most)
	case p.Failure:
		return "on-failure"
	}
	return "no"
}

// Bounds of the pause before the next life. The pause doubles each time, until a life
// has lasted long enough.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = time.Minute
	longLife   = 10 * time.Second
)

// history is a guest's failures so far.
type history struct {
	row   int // failures in a row
	pause time.Duration
}

// next decides what follows a life that ended with end and err after lasted: another
// life after a pause, or none.
func (h *history) next(p Policy, end machine.End, err error, lasted time.Duration) (pause time.Duration, again bool) {
	reset := err == nil && (end.Reason == machine.Reset || end.Reason == machine.TripleFault)
	if reset && p.Reboot {
		return 0, true
	}
	if lasted >= longLife {
		*h = history{}
	}
	failed := err != nil || end.Reason != machine.PowerOff
	if !p.Always && !(p.Failure && failed) {
		return 0, false
	}
	if failed {
		h.row++
		if p.Most > 0 && h.row > p.Most {
			return 0, false
		}
	}
	h.pause = min(max(2*h.pause, firstPause), mostPause)
	return h.pause, true
}

package service

import (
	"errors"
	"testing"
	"time"

	"vmm/machine"
)

func TestParsePolicy(t *testing.T) {
	for text, want := range map[string]Policy{
		"no": {}, "always": {Always: true}, "on-failure": {Failure: true}, "on-failure:3": {Failure: true, Most: 3},
	} {
		p, err := ParsePolicy(text)
		if err != nil || p != want || p.String() != text {
			t.Errorf("%s: %+v (%v), %v", text, p, p, err)
		}
	}
	for _, text := range []string{"", "yes", "on-failure:", "on-failure:0", "on-failure:-1", "on-failure:x", "always:3", "no:1"} {
		if p, err := ParsePolicy(text); err == nil {
			t.Errorf("%q is %+v", text, p)
		}
	}
}

func TestPolicy(t *testing.T) {
	off, reset, fault, panicked := machine.End{}, machine.End{Reason: machine.Reset}, machine.End{Reason: machine.TripleFault}, machine.End{Reason: machine.Panic}
	broken := errors.New("vCPU 0: KVM internal error")
	reboot := Policy{Reboot: true}
	for _, test := range []struct {
		policy string
		reboot bool
		end    machine.End
		err    error
		again  bool
	}{
		{"no", false, off, nil, false}, {"no", false, reset, nil, false}, {"no", false, panicked, nil, false}, {"no", false, off, broken, false},
		{"no", true, off, nil, false}, {"no", true, reset, nil, true}, {"no", true, fault, nil, true}, {"no", true, panicked, nil, false}, {"no", true, reset, broken, false},
		{"on-failure", false, off, nil, false}, {"on-failure", false, reset, nil, true}, {"on-failure", false, panicked, nil, true}, {"on-failure", false, off, broken, true},
		{"always", false, off, nil, true}, {"always", false, panicked, nil, true}, {"always", false, off, broken, true},
	} {
		p, err := ParsePolicy(test.policy)
		if err != nil {
			t.Fatal(err)
		}
		p.Reboot = test.reboot
		var h history
		if _, again := h.next(p, test.end, test.err, time.Second); again != test.again {
			t.Errorf("%s, reboot %v, after %v, %v: again is %v", test.policy, test.reboot, test.end, test.err, again)
		}
	}
	var h history
	if pause, again := h.next(reboot, reset, nil, 0); !again || pause != 0 {
		t.Errorf("a reboot waits %v", pause)
	}
}

// TestBackoff: the wait grows with each failure in a row, and failures are counted. A
// long life resets both.
func TestBackoff(t *testing.T) {
	p := Policy{Failure: true, Most: 12}
	failure := machine.End{Reason: machine.Panic}
	var h history
	want := firstPause
	for i := range 12 {
		if pause, again := h.next(p, failure, nil, time.Second); !again || pause != want {
			t.Errorf("failure %d: %v, %v; want %v", i, pause, again, want)
		}
		want = min(2*want, mostPause)
	}
	if _, again := h.next(p, failure, nil, time.Second); again {
		t.Error("more failures than the policy allows")
	}
	if pause, again := h.next(p, failure, nil, longLife); !again || pause != firstPause {
		t.Errorf("after a long life: %v, %v", pause, again)
	}
}

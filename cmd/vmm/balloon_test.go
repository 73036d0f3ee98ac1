package main

import (
	"errors"
	"strings"
	"testing"

	"vmm/machine"
)

func TestBalloonFlag(t *testing.T) {
	for _, test := range []struct {
		text string
		want balloon
		ok   bool
	}{
		{"off", balloon{off: true}, true},
		{"64M", balloon{size: 64 << 20}, true},
		{"0M", balloon{}, true},
		{"0", balloon{}, true},
		{"64", balloon{}, false},
		{"on", balloon{}, false},
		{"", balloon{}, false},
		{"-1M", balloon{}, false},
	} {
		var b balloon
		err := b.Set(test.text)
		if (err == nil) != test.ok || b != test.want {
			t.Errorf("%q: %+v, %v", test.text, b, err)
		}
		if err != nil && !strings.Contains(err.Error(), "64M, or off") {
			t.Errorf("%q: %v does not say what to do", test.text, err)
		}
	}
	if s := (&balloon{off: true}).String(); s != "off" {
		t.Error(s)
	}
}

// TestBalloonTooLarge: the error names the flag and the guest's memory.
func TestBalloonTooLarge(t *testing.T) {
	c := machine.Config{Kernel: "x", CPUs: 1, Memory: 64 << 20, Balloon: 65 << 20}
	err := flagName(c.Validate())
	if want := "--balloon: 65 MiB; the guest has 64 MiB in all"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	c.NoBalloon = true
	if err := c.Validate(); !errors.As(err, new(*machine.ConfigError)) {
		t.Errorf("a balloon without a balloon: %v", err)
	}
}

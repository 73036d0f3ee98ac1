package machine

import (
	"errors"
	"testing"
)

func TestReachable(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		memory uint64
		bits   uint32
		good   bool
	}{
		{3 * gib, 32, true},
		{4 * gib, 32, false},
		{511 * gib, 39, true},
		{512 * gib, 39, false}, // a GiB of it lies behind the hole
		{1024 * gib, 39, false},
		{1024 * gib, 46, true},
		{1024 * gib, 52, true},
	} {
		err := reachable(test.memory, test.bits)
		var bad *ConfigError
		if (err == nil) != test.good || err != nil && (!errors.As(err, &bad) || bad.Field != "Memory") {
			t.Errorf("%d GiB, %d bits: %v", test.memory/gib, test.bits, err)
		}
	}
	if err := reachable(1024*gib, 39); err == nil || err.Error() != "Memory: 1024 GiB; this host's processor gives a guest 39 bits of physical address: at most 511 GiB" {
		t.Error(err)
	}
}

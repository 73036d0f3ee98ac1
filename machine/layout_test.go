package machine

import (
	"errors"
	"testing"

	"vmm/guest/payload"
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
		{512 * gib, 39, false}, // one GiB of it lies above the hole
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

// TestUnreachable: New refuses such a machine where the processor has too few address
// bits (as in the lab).
func TestUnreachable(t *testing.T) {
	c := payloadConfig(t, payload.Spin())
	sys, err := OpenKVM(KVMDevice)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	supported, err := sys.SupportedCPUID()
	if err != nil {
		t.Fatal(err)
	}
	c.Memory = MaxMemory
	if reachable(c.Memory, physicalBits(supported)) == nil {
		t.Skip("this processor reaches all memory that a machine can have")
	}
	m, err := New(c)
	if err == nil {
		m.Close()
	}
	var bad *ConfigError
	if !errors.As(err, &bad) || bad.Field != "Memory" {
		t.Error(err)
	}
}

// TestTransportInterrupts: devices on the command line are level-triggered, as it
// cannot say otherwise; each device in the ACPI tables is edge-triggered.
func TestTransportInterrupts(t *testing.T) {
	for transport, edges := range map[Transport]int{MMIO: 1, MMIOCmdline: 0} {
		c := payloadConfig(t, payload.Spin())
		c.Transport, c.NoBalloon = transport, true // only the entropy device remains
		m, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if n := m.devices.edges; len(m.devices.virtio) != 1 || n != edges {
			t.Errorf("%s: %d devices with %d edges, want 1 with %d", transport, len(m.devices.virtio), n, edges)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

package pci_test

import (
	"testing"

	"vmm/devices/pci"
)

func TestINTx(t *testing.T) {
	h := newHost(t)
	f := make([]*pci.Function, 10)
	for i := 1; i < 10; i++ {
		_, v := vectors(1)
		f[i] = h.add(&device{}, v)
	}
	control := h.findCap(5, 0x11) + 2
	set := func(slot int, high bool) func() { return func() { f[slot].INTx().Set(high) } }
	conf := func(reg uint64, v uint64) func() { return func() { h.setConfig(5, reg, 2, v) } }
	const disable = 1 << 10
	steps := []struct {
		name    string
		do      func()
		high    bool // the line of slots 1, 5 and 9
		changes int  // so far
		status  bool // of slot 5
	}{
		{"reset", func() {}, false, 0, false},
		{"low", set(5, false), false, 0, false},
		{"high", set(5, true), true, 1, true},
		{"again", set(5, true), true, 1, true},
		{"shared", set(9, true), true, 1, true},
		{"first low", set(5, false), true, 1, false},
		{"second low", set(9, false), false, 2, false},
		{"other line", set(6, true), false, 2, false},
		{"disabled", conf(command, disable), false, 2, false},
		{"high while disabled", set(5, true), false, 2, true},
		{"enabled", conf(command, 0), true, 3, true},
		{"disabled while high", conf(command, disable|memoryOn), false, 4, true},
		{"sharer, while disabled", set(1, true), true, 5, true},
		{"enabled while shared", conf(command, 0), true, 5, true},
		{"sharer low", set(1, false), true, 5, true},
		{"MSI-X", conf(control, enabled), false, 6, true},
		{"both", conf(command, disable), false, 6, true},
		{"MSI-X off", conf(control, 0), false, 6, true},
		{"neither", conf(command, 0), true, 7, true},
		{"MSI-X, masked", conf(control, fmasked), false, 8, true},
		{"low under MSI-X", set(5, false), false, 8, false},
		{"MSI-X off again", conf(control, 0), false, 8, false},
		{"high again", set(5, true), true, 9, true},
		{"status cannot be written", conf(status, 0xffff), true, 9, true},
		{"reset", h.bus.Reset, false, 10, false},
	}
	for _, s := range steps {
		s.do()
		l := &h.lines[1]
		if st := h.config(5, status, 2)&8 != 0; l.high != s.high || l.changes != s.changes || l.calls != l.changes || st != s.status {
			t.Fatalf("%s: line %v after %d changes by %d calls, status %v", s.name, l.high, l.changes, l.calls, st)
		}
		if st := h.config(5, status, 1)&8 != 0; st != s.status || h.config(5, status+1, 1) != 0 || h.config(5, command, 4)>>16&8 != 0 != st {
			t.Fatalf("%s: status differs by width", s.name)
		}
	}
	if h.lines[0].changes+h.lines[3].changes != 0 || h.lines[2].changes != 2 {
		t.Error("other lines changed")
	}
	t.Logf("%d steps", len(steps))
}

// TestNoLines: without lines a device has no pin, and Set does no harm.
func TestNoLines(t *testing.T) {
	h := newHost(t)
	b := pci.NewBus(h.memory, h.io, bridgeIdent, windows, nil)
	f, err := b.Add(&device{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.INTx().Set(true)
	if pin := in(b.ECAM(), 1<<15|0x3d, 1); pin != 0 {
		t.Errorf("pin %d", pin)
	}
}

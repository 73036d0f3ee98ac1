package pci_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"vmm/devices/pci"
)

func (h *host) save() []byte {
	h.t.Helper()
	b, err := h.bus.Save()
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *host) state() (s pci.State) {
	h.t.Helper()
	if err := json.Unmarshal(h.save(), &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *host) load(s pci.State) {
	h.t.Helper()
	b, _ := json.Marshal(s)
	if err := h.bus.Load(b); err != nil {
		h.t.Fatal(err)
	}
}

// pair returns two hosts with the same two devices.
func pair(t testing.TB) (h [2]*host, f [2]*pci.Function, v [2][]*vector) {
	for i := range h {
		h[i] = newHost(t)
		var p []pci.Vector
		v[i], p = vectors(2)
		f[i] = h[i].add(example('A'), p)
		h[i].add(example('C'), nil)
	}
	return h, f, v
}

func TestSaveLoad(t *testing.T) {
	h, f, v := pair(t)
	a, b := h[0], h[1]
	fresh := a.save()

	control, table, pba := a.msix(1)
	a.setConfig(1, control, 2, enabled)
	for i := range uint64(2) {
		out(a.memory, table+16*i, 8, apic)
		out(a.memory, table+16*i+8, 8, 0x30+i)
	}
	out(a.memory, table+12, 4, 1)
	f[0].MSIX().Signal(0)
	a.setConfig(2, command, 2, memoryOn)
	a.setConfig(1, 0x18, 4, 0xc00a_0000)
	a.setConfig(2, 0x18, 4, 0xc000_0000)
	a.setConfig(1, 0x18, 4, 0xc000_0000) // slot 2 came first
	a.setConfig(2, 0x3c, 1, 11)
	out(a.ports, 0, 4, 0x8000_1004)
	saved := a.save()

	if err := b.bus.Load(saved); err != nil {
		t.Fatal(err)
	}
	if got := b.save(); !bytes.Equal(got, saved) {
		t.Errorf("saved\n%s, then\n%s", saved, got)
	}
	if b.who(0xc000_0000) != 'D' || b.who(highBase) != 'A' {
		t.Errorf("%c, %c answer", b.who(0xc000_0000), b.who(highBase))
	}
	if !f[1].MSIX().Enabled() || in(b.memory, pba, 8) != 1 || v[1][0].routes.Load() != 0 || v[1][1].routes.Load() != 1 || v[1][1].data.Load() != 0x31 {
		t.Error("MSI-X")
	}
	if out(b.memory, table+12, 4, 0); v[1][0].signals.Load() != 1 {
		t.Error("a pending interrupt was lost")
	}
	if in(b.ports, 0, 4) != 0x8000_1004 || b.config(2, 0x3c, 1) != 11 {
		t.Error("registers")
	}

	if err := a.bus.Load(saved); err != nil || !bytes.Equal(a.save(), saved) { // onto itself
		t.Error("a second time:", err)
	}
	before := v[0][1].signals.Load()
	if f[0].MSIX().Signal(1); v[0][1].signals.Load() != before+1 {
		t.Error("a vector is silent after Load")
	}

	b.bus.Reset()
	if got := b.save(); !bytes.Equal(got, fresh) || b.who(highBase) != '-' || f[1].MSIX().Enabled() {
		t.Errorf("after reset\n%s, want\n%s", got, fresh)
	}
	a.load(pci.State{}) // the zero value is the reset state
	if got := a.save(); !bytes.Equal(got, fresh) {
		t.Errorf("from zero\n%s, want\n%s", got, fresh)
	}
}

// TestLoadPorts: which device gets the ports that two want.
func TestLoadPorts(t *testing.T) {
	var h [2]*host
	for i := range h {
		h[i] = newHost(t)
		h[i].add(ported('A'), nil)
		h[i].add(ported('C'), nil)
	}
	h[0].setConfig(2, command, 2, portsOn)
	h[0].setConfig(2, 0x1c, 4, 0x1000)
	h[0].setConfig(1, command, 2, portsOn)
	saved := h[0].save()
	if err := h[1].bus.Load(saved); err != nil {
		t.Fatal(err)
	}
	if got := h[1].save(); !bytes.Equal(got, saved) {
		t.Errorf("saved\n%s, then\n%s", saved, got)
	}
	for _, h := range h {
		if a, b, c := h.whoPort(0x1000), h.whoPort(0x1100), h.whoPort(0x1200); a != 'c' || b != 'b' || c != 'd' {
			t.Errorf("%c, %c, %c answer", a, b, c)
		}
		if h.bus.Reset(); h.whoPort(0x1000) != '-' {
			t.Error("ports answer after reset")
		}
	}
}

// TestLoadINTx: the level that a device has set, and whether it is let through.
func TestLoadINTx(t *testing.T) {
	h, f, _ := pair(t)
	f[0].INTx().Set(true)
	if err := h[1].bus.Load(h[0].save()); err != nil || !h[1].lines[1].high {
		t.Error("the line is low", err)
	}
	h[0].setConfig(1, command, 2, 1<<10)
	h[1].bus.Reset()
	changes := h[1].lines[1].changes
	if err := h[1].bus.Load(h[0].save()); err != nil || h[1].lines[1].changes != changes || h[1].config(1, status, 2)&8 == 0 {
		t.Error("Interrupt Disable was ignored", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	tests := map[string]func(s *pci.State){
		"CONFIG_ADDRESS": func(s *pci.State) { s.Address = 1 },
		"functions":      func(s *pci.State) { s.Functions = s.Functions[:2] },
		"bytes":          func(s *pci.State) { s.Functions[1].Config = s.Functions[1].Config[:255] },
		"vendor":         func(s *pci.State) { s.Functions[1].Config[0]++ },
		"I/O decoding":   func(s *pci.State) { s.Functions[1].Config[4] |= 1 },
		"size of BAR":    func(s *pci.State) { s.Functions[1].Config[0x11] |= 0x20 },
		"type of BAR":    func(s *pci.State) { s.Functions[1].Config[0x10] = 0 },
		"BAR 5":          func(s *pci.State) { s.Functions[1].Config[0x24] = 0x10 },
		"capability":     func(s *pci.State) { s.Functions[1].Config[0x41] = 0 },
		"table size":     func(s *pci.State) { s.Functions[1].Config[0x5a]++ },
		"interrupt":      func(s *pci.State) { s.Functions[1].Config[6] |= 8 },
		"entries":        func(s *pci.State) { s.Functions[1].Table = s.Functions[1].Table[:1] },
		"table of none":  func(s *pci.State) { s.Functions[2].Table = []pci.Entry{{}} },
		"address":        func(s *pci.State) { s.Functions[1].Table[0].Address = 2 },
		"control":        func(s *pci.State) { s.Functions[1].Table[0].Control = 3 },
		"pending":        func(s *pci.State) { s.Functions[1].Pending = []uint16{2} },
		"pending none":   func(s *pci.State) { s.Functions[2].Pending = []uint16{0} },
	}
	h, _, _ := pair(t)
	h[0].setConfig(1, command, 2, memoryOn)
	before := h[0].save()
	for name, change := range tests {
		s := h[0].state()
		change(&s)
		b, _ := json.Marshal(s)
		if err := h[0].bus.Load(b); err == nil || !strings.HasPrefix(err.Error(), "pci: state: ") {
			t.Errorf("%s: error %v", name, err)
		}
		if !bytes.Equal(h[0].save(), before) {
			t.Errorf("%s: the refused state has changed something", name)
		}
	}
	for _, s := range []string{"", "{", `{"functions":{}}`, `{"functions":[{"config":"="}]}`} {
		if h[0].bus.Load([]byte(s)) == nil {
			t.Errorf("%q was loaded", s)
		}
	}
	for _, s := range []string{"{}", "null", `{"functions":[]}`, `{"functions":[{},{"table":[],"pending":null,"mapped":255},{}]}`} {
		if err := h[0].bus.Load([]byte(s)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	t.Logf("%d states", len(tests)+8)
}

func FuzzLoad(f *testing.F) {
	h, _, _ := pair(f)
	f.Add(h[0].save())
	h[0].setConfig(1, command, 2, memoryOn)
	f.Add(h[0].save())
	f.Fuzz(func(t *testing.T, b []byte) {
		h := newHost(t)
		_, v := vectors(2)
		h.add(example('A'), v)
		h.add(example('C'), nil)
		if h.bus.Load(b) != nil {
			return
		}
		saved := h.save()
		if err := h.bus.Load(saved); err != nil {
			t.Fatal(err)
		}
		if got := h.save(); !bytes.Equal(got, saved) {
			t.Errorf("%s, then %s", saved, got)
		}
	})
}

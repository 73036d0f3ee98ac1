package pci_test

import (
	"bytes"
	"regexp"
	"testing"

	"vmm/bus"
	"vmm/devices/pci"
)

// A script is the fuzzer's input: what a guest does.
type script []byte

func (s *script) next() uint64 {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return uint64(b)
}

func (s *script) word() uint64 { return s.next() | s.next()<<8 }

// value returns 8 bytes, most often an address that hits something.
func (s *script) value() uint64 {
	kind, x := s.next(), s.word()
	switch kind % 8 {
	case 0:
		return x
	case 1:
		return ^uint64(0)
	case 2:
		return lowBase + x<<12
	case 3:
		return highBase + x<<12
	case 4:
		return fixedBase + x&7<<12
	case 5:
		return apic | x<<32
	case 6:
		return x << 16
	default:
		return x | s.word()<<16 | s.word()<<32 | s.word()<<48
	}
}

// step does one thing that a guest, a device or the machine may do.
func (s *script) step(h *host, f [2]*pci.Function) {
	op, off := s.next(), s.word()
	n := 1 << (op >> 4 & 3)
	access := func(d bus.Device, off uint64) {
		if op&0x80 != 0 {
			out(d, off, n, s.value())
		} else {
			in(d, off, n)
		}
	}
	switch slot := 1 + off>>8&1; op & 15 {
	case 0, 1, 2: // the header of a device
		access(h.ecam, slot<<15|off&0x3f)
	case 3:
		access(h.ecam, off<<4|s.next()&15)
	case 4:
		out(h.ports, 0, 4, 0x8000_0000|slot<<11|off&0xff)
		access(h.ports, 4+op>>4&3)
	case 5:
		access(h.ports, off&7)
	case 6, 7: // wherever the MSI-X table is
		if table := h.config(1, 0x1c, 4) &^ 15; table != 0 {
			access(h.memory, table+off&0xfff)
		}
	case 8:
		h.setConfig(1, 0x5a, 2, off)
	case 9:
		f[0].MSIX().Signal(uint16(off & 3))
	case 10:
		f[off&1].INTx().Set(op&0x80 != 0)
	case 11:
		h.setConfig(int(slot), command, 2, off&0xff|memoryOn)
	case 12:
		access(h.memory, s.value())
	case 15:
		access(h.io, s.value())
	case 13:
		if off&0x1f == 0 {
			h.bus.Reset()
		}
	case 14:
		h.reload()
	}
}

var pendingVectors = regexp.MustCompile(`,"pending":\[[^]]*\]`)

// reload saves and loads. The state afterwards is the saved one, except for interrupts
// that a load sends: if a guest gives a vector a good address without masking it first,
// its pending interrupt waits until then.
func (h *host) reload() {
	saved := h.save()
	if err := h.bus.Load(saved); err != nil {
		h.t.Fatal(err)
	}
	got := h.save()
	if !bytes.Equal(pendingVectors.ReplaceAll(got, nil), pendingVectors.ReplaceAll(saved, nil)) {
		h.t.Fatalf("saved\n%s, then\n%s", saved, got)
	}
	if err := h.bus.Load(got); err != nil {
		h.t.Fatal(err)
	}
	if again := h.save(); !bytes.Equal(again, got) {
		h.t.Fatalf("saved\n%s, and again\n%s", got, again)
	}
}

// FuzzConfig runs scripts against two devices. Nothing panics, BARs overlap nothing and
// stay in the windows, devices know their addresses, identities stay, and reads have no
// effect.
func FuzzConfig(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			return // long scripts find nothing more
		}
		h := newHost(t)
		_, v := vectors(2)
		devices := []*device{example('A'), ported('C')}
		functions := [2]*pci.Function{h.add(devices[0], v), h.add(devices[1], nil)}
		for s := script(b); len(s) != 0; {
			s.step(h, functions)
			check(t, h, devices)
		}
		for slot, id := range []uint64{0x0008_1b36, 0x1041_1af4, 0x1043_1af4, 0xffff_ffff} {
			out(h.ports, 0, 4, 0x8000_0000|uint64(slot)<<11)
			if a, b := h.config(slot, 0, 4), in(h.ports, 4, 4); a != id || b != id {
				t.Errorf("slot %d is %#x and %#x", slot, a, b)
			}
			for reg := uint64(0); reg < 256; reg += 4 {
				out(h.ports, 0, 4, 0x8000_0000|uint64(slot)<<11|reg)
				a, b, c := h.config(slot, reg, 4), in(h.ports, 4, 4), h.config(slot, reg, 8)&0xffff_ffff
				if a != b || a != c {
					t.Errorf("slot %d, register %#x: %#x, then %#x, then %#x", slot, reg, a, b, c)
				}
			}
		}
	})
}

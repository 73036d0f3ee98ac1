package qemu

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// The instructions of helper_vmrun that matter, as a compiler lays them out.
var (
	request = []byte{0x81, 0x8b, 0x10, 0xd5, 0xff, 0xff, 0x00, 0x01, 0x00, 0x00} // orl $0x100,-0x2af0(%rbx)
	other   = []byte{0x81, 0x8b, 0xb4, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00} // orl $1,0xb4(%rbx)
	inject  = []byte{0x89, 0xb3, 0x10, 0xd7, 0xff, 0xff}                         // mov %esi,-0x28f0(%rbx)
	info    = []byte{0x89, 0xb3, 0xe0, 0x33, 0x00, 0x00}                         // mov %esi,0x33e0(%rbx)
	nmi     = []byte{0xc7, 0x83, 0x10, 0xd7, 0xff, 0xff, 0x02, 0, 0, 0}          // movl $2,-0x28f0(%rbx)
)

func TestRepair(t *testing.T) {
	code := slices.Concat(other, request, info, inject, nmi, []byte{0xc3})
	want := slices.Concat(other,
		[]byte{0xf0, 0x80, 0x8b, 0x11, 0xd5, 0xff, 0xff, 0x01, 0x66, 0x90}, // lock orb $1,-0x2aef(%rbx); xchg %ax,%ax
		info, []byte{0x66, 0x0f, 0x1f, 0x44, 0, 0}, nmi, []byte{0xc3})
	if changed, err := repair(code); !changed || err != nil || !bytes.Equal(code, want) {
		t.Errorf("%v, %v: % x, want % x", changed, err, code, want)
	}
	if changed, err := repair(code); changed || err != nil || !bytes.Equal(code, want) {
		t.Errorf("once more: %v, %v: % x", changed, err, code)
	}
}

// TestRepairUnknown: what is not known for certain stays as it is.
func TestRepairUnknown(t *testing.T) {
	for name, code := range map[string][]byte{
		"empty":         nil,
		"no request":    slices.Concat(other, inject, nmi),
		"two requests":  slices.Concat(request, request, inject, nmi),
		"no injection":  slices.Concat(request, info, nmi),
		"two":           slices.Concat(request, inject, inject, nmi),
		"no NMI":        slices.Concat(request, inject),
		"half repaired": slices.Concat([]byte{0xf0, 0x80, 0x8b, 0x11, 0xd5, 0xff, 0xff, 0x01, 0x66, 0x90}, inject, nmi),
		"cut off":       slices.Concat(request, inject, nmi[:5]),
	} {
		before := bytes.Clone(code)
		if changed, err := repair(code); changed || !errors.Is(err, errUnknown) || !bytes.Equal(code, before) {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
	}
}

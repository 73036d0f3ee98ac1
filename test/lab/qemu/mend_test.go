package qemu

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The relevant instructions of helper_vmrun, as a compiler encodes them.
var (
	request = []byte{0x81, 0x8b, 0x10, 0xd5, 0xff, 0xff, 0x00, 0x01, 0x00, 0x00} // orl $0x100,-0x2af0(%rbx)
	other   = []byte{0x81, 0x8b, 0xb4, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00} // orl $1,0xb4(%rbx)
	inject  = []byte{0x89, 0xb3, 0x10, 0xd7, 0xff, 0xff}                         // mov %esi,-0x28f0(%rbx)
	info    = []byte{0x89, 0xb3, 0xe0, 0x33, 0x00, 0x00}                         // mov %esi,0x33e0(%rbx)
	nmi     = []byte{0xc7, 0x83, 0x10, 0xd7, 0xff, 0xff, 0x02, 0, 0, 0}          // movl $2,-0x28f0(%rbx)
)

func TestRepairVMRUN(t *testing.T) {
	code := slices.Concat(other, request, info, inject, nmi, []byte{0xc3})
	want := slices.Concat(other,
		[]byte{0xf0, 0x80, 0x8b, 0x11, 0xd5, 0xff, 0xff, 0x01, 0x66, 0x90}, // lock orb $1,-0x2aef(%rbx); xchg %ax,%ax
		info, []byte{0x66, 0x0f, 0x1f, 0x44, 0, 0}, nmi, []byte{0xc3})
	if changed, err := repairVMRUN(code); !changed || err != nil || !bytes.Equal(code, want) {
		t.Errorf("%v, %v: % x, want % x", changed, err, code, want)
	}
	if changed, err := repairVMRUN(code); changed || err != nil || !bytes.Equal(code, want) {
		t.Errorf("once more: %v, %v: % x", changed, err, code)
	}
}

// TestRepairVMRUNUnknown: code that is not known for certain stays unchanged.
func TestRepairVMRUNUnknown(t *testing.T) {
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
		if changed, err := repairVMRUN(code); changed || !errors.Is(err, errUnknown) || !bytes.Equal(code, before) {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
	}
}

// The instructions of cpu_clear_ignne.
var (
	clear  = []byte{0x81, 0xa0, 0x74, 0x2c, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff} // andl $0xffffff7f,0x2c74(%rax)
	locked = []byte{0xf0, 0x80, 0xa0, 0x74, 0x2c, 0x00, 0x00, 0x7f, 0x66, 0x90} // lock andb $0x7f,0x2c74(%rax); xchg %ax,%ax
	around = []byte{0xe8, 0x06, 0x5f, 0x14, 0x00}                               // call object_dynamic_cast_assert
)

func TestRepairIGNNE(t *testing.T) {
	code := slices.Concat(around, clear, []byte{0xc3})
	want := slices.Concat(around, locked, []byte{0xc3})
	if changed, err := repairIGNNE(code); !changed || err != nil || !bytes.Equal(code, want) {
		t.Errorf("%v, %v: % x, want % x", changed, err, code, want)
	}
	if changed, err := repairIGNNE(code); changed || err != nil || !bytes.Equal(code, want) {
		t.Errorf("once more: %v, %v: % x", changed, err, code)
	}
	for name, code := range map[string][]byte{
		"empty":   nil,
		"none":    around,
		"two":     slices.Concat(clear, clear),
		"cut off": clear[:9],
	} {
		before := bytes.Clone(code)
		if changed, err := repairIGNNE(code); changed || !errors.Is(err, errUnknown) || !bytes.Equal(code, before) {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
	}
}

// TestMend: a program with neither function stays unchanged, and the error names both.
func TestMend(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, before, 0o755); err != nil {
		t.Fatal(err)
	}
	err = mend(path)
	after, _ := os.ReadFile(path)
	if !bytes.Equal(before, after) {
		t.Error("it was changed")
	}
	for _, r := range repairs {
		if !errors.Is(err, errUnknown) || !strings.Contains(err.Error(), r.function) {
			t.Errorf("%v, without %s", err, r.function)
		}
	}
}

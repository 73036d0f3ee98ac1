package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmm/kvm"
	"vmm/test/allow"
)

// TestMain makes this binary also the trap and the command that it traps.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "ioctl" {
		for _, request := range []uint{0xae03, kvmRun} { // the trap lets KVM_CHECK_EXTENSION through
			unix.IoctlSetInt(0, request, 0) // fails at once, without the trap
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == "trap" {
		if err := trap(os.Args[2:]); err != nil {
			io.WriteString(os.Stderr, err.Error())
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func TestParse(t *testing.T) {
	for args, ok := range map[string]bool{
		"boot": true, "-rounds 3 -only ^vmm pio": true,
		"": false, "disk": false, "boot pio": false, "-rounds 0 boot": false, "-only ( boot": false, "-x boot": false, "-rounds 1 blk": true,
	} {
		o, err := parse(strings.Fields(args))
		if (err == nil) != ok {
			t.Errorf("%q: %+v, %v", args, o, err)
		}
	}
}

// TestRivals: ratios and -only go by names, so these are unique.
func TestRivals(t *testing.T) {
	f := files{vmm: "/vmm", gokvm: "/gokvm", kernel: "/vmlinuz", vmlinux: "/vmlinux", initrd: "/initrd", scratch: t.TempDir()}
	seen := map[string]bool{}
	for _, v := range rivals() {
		argv, err := v.argv(f, bootMemory)
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Join(argv, " ")
		if seen[v.name] || !strings.Contains(all, cmdline) || !strings.Contains(all, "/initrd") || !strings.Contains(all, "/vmlinu") {
			t.Errorf("%s: %s", v.name, all)
		}
		seen[v.name] = true
	}
	if !seen["vmm"] || !seen["qemu-microvm"] || !seen["gokvm"] {
		t.Errorf("what ratios are to is missing: %v", seen)
	}
}

func TestPayloadOf(t *testing.T) {
	image := make([]byte, 2048)
	le := binary.LittleEndian
	image[0x1f1] = 1 // so the payload's offset counts from 1024
	le.PutUint32(image[0x248:], 16)
	le.PutUint32(image[0x24c:], 3+4)
	copy(image[1040:], "abc\x03\x00\x00\x00")
	r, err := payloadOf(image)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(r); !bytes.Equal(got, []byte("abc")) {
		t.Errorf("%q", got)
	}
	for _, length := range []uint32{0, 3, 2048, 0xffff_ffff} {
		le.PutUint32(image[0x24c:], length)
		if _, err := payloadOf(image); err == nil {
			t.Errorf("a payload of %#x bytes is found", length)
		}
	}
	if _, err := payloadOf(image[:0x200]); err == nil {
		t.Error("a short file has a payload")
	}
}

// TestLock: two benches at once would measure each other.
func TestLock(t *testing.T) {
	f := files{results: t.TempDir()}
	if err := f.lock(); err != nil {
		t.Fatal(err)
	}
	first := locked
	if f.lock() == nil {
		t.Error("a second bench starts")
	}
	first.Close()
	if err := f.lock(); err != nil {
		t.Error("after the first has ended:", err)
	}
}

// TestTrap: a command that never runs a guest is not taken for one that does.
func TestTrap(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	if took, err := firstRun(ctx, self, []string{self, "ioctl"}); err != nil || took <= 0 {
		t.Errorf("of a command that does: %v, %v", took, err)
	}
	if took, err := firstRun(ctx, self, []string{"/bin/sh", "-c", "echo hello"}); err == nil || !strings.Contains(err.Error(), "never ran its guest") {
		t.Errorf("%v, %v", took, err)
	}
}

// TestExits: the measured loop sees the guest's accesses, and allocates nothing.
func TestExits(t *testing.T) {
	sys, err := kvm.Open(kvm.Device)
	if err != nil {
		t.Skip(err)
	}
	sys.Close()
	result, err := pioGo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if perExit := result.Parts["allocations/exit"]; result.Value <= 0 || perExit > 0.01 {
		t.Errorf("%v ns, %v allocations an exit", result.Value, perExit)
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"

	"vmm/guest"
	"vmm/guest/kernel"
)

// where returns the paths of all files, below the module's folder.
func where() (files, error) {
	root, err := kernel.Root()
	if err != nil {
		return files{}, err
	}
	bin := filepath.Join(root, "bin", "bench")
	cache := filepath.Join(root, ".cache")
	return files{
		source: filepath.Join(root, "test", "bench"),
		vmm:    filepath.Join(bin, "vmm"), gokvm: filepath.Join(bin, "gokvm"), self: filepath.Join(bin, "bench"), pio: filepath.Join(bin, "pio"),
		kernel: filepath.Join(cache, "kernels", "cloud", "vmlinuz"), vmlinux: filepath.Join(cache, "bench", "vmlinux"),
		initrd: filepath.Join(cache, "guest", "initrd-cloud.cpio"), results: filepath.Join(cache, "bench"),
	}, nil
}

// lock excludes a second bench until this process ends: the two would disturb each
// other, and one would replace what the other measures.
func (f files) lock() error {
	if err := os.MkdirAll(f.results, 0o755); err != nil {
		return err
	}
	l, err := os.OpenFile(filepath.Join(f.results, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(l.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		l.Close()
		return fmt.Errorf("%s: another bench is running; wait for its end: %w", l.Name(), err)
	}
	locked = l
	return nil
}

// locked holds the lock: the garbage collector closes an unreferenced file.
var locked *os.File

// build builds all programs, static and in their own folder, where no other build
// replaces them while they are measured. If needed, it also fetches kernel and initrd.
func (f files) build(ctx context.Context, kernels bool) error {
	for out, pkg := range map[string]string{
		f.vmm: "vmm/cmd/vmm", f.self: "vmm/test/bench", f.lab(): "vmm/test/lab", f.gokvm: "github.com/bobuhiro11/gokvm",
	} {
		if err := command(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg); err != nil {
			return err
		}
	}
	if kernels {
		if err := f.bring(ctx); err != nil {
			return err
		}
	}
	if _, err := exec.LookPath("cc"); err != nil {
		return nil // the entry that needs it says so
	}
	return command(ctx, "cc", "-O2", "-Wall", "-Wextra", "-o", f.pio, filepath.Join(f.source, "native", "pio.c"))
}

// bring fetches and unpacks the kernel, and builds the initrd.
func (f files) bring(ctx context.Context) error {
	if _, err := kernel.Fetch(ctx, "cloud"); err != nil {
		return err
	}
	if _, err := guest.Build(ctx, "cloud"); err != nil {
		return err
	}
	return unpack(f.vmlinux, f.kernel)
}

func (f files) lab() string { return filepath.Join(filepath.Dir(f.self), "lab") }

// command runs a program, with cgo disabled for builds.
func command(ctx context.Context, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", argv[len(argv)-1], err)
	}
	return nil
}

// unpack writes the lz4 payload of a bzImage, an ELF kernel, to a file.
func unpack(to, from string) error {
	image, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	payload, err := payloadOf(image)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	f, err := os.Create(to + ".tmp") // renamed when complete
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, lz4.NewReader(payload)); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return errors.Join(f.Close(), os.Rename(f.Name(), to))
}

// payloadOf finds the compressed kernel: payload_offset and payload_length in boot.rst.
// Its last 4 bytes are the unpacked size.
func payloadOf(image []byte) (io.Reader, error) {
	const setupSects, payloadOffset, payloadLength, header = 0x1f1, 0x248, 0x24c, 0x250
	if len(image) < header {
		return nil, fmt.Errorf("%d bytes are no bzImage", len(image))
	}
	le := binary.LittleEndian
	start := (int64(image[setupSects])+1)*512 + int64(le.Uint32(image[payloadOffset:]))
	length := int64(le.Uint32(image[payloadLength:])) - 4
	if length < 0 || start+length > int64(len(image)) {
		return nil, fmt.Errorf("its payload is not inside")
	}
	return bytes.NewReader(image[start : start+length]), nil
}

// Package guest builds what runs inside a machine of the tests and of
// `make run`: an initramfs with u-root's commands, an init of our own and the
// modules of the kernel that it is for. The same sources give the same bytes.
package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"

	"vmm/guest/initramfs"
	"vmm/guest/kernel"
	"vmm/guest/modules"
)

// drivers are the modules that a guest may need. init loads those whose device
// is there, and those that the kernel asks for.
var drivers = []string{
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "virtio_balloon",
	"vmw_vsock_virtio_transport", "virtiofs", "button", "evdev", "pvpanic_mmio", "erofs", "overlay", "ptp_kvm",
}

//go:embed tools.go
var tools []byte

// Build returns the path of the initramfs for a kernel, in the cache. The slow
// part, u-root's commands, is built once for a version of the sources.
func Build(ctx context.Context, kernelName string) (string, error) {
	k, err := kernel.Fetch(ctx, kernelName)
	if err != nil {
		return "", err
	}
	cache, err := kernel.Cache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "guest")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	base, err := commands(ctx, dir)
	if err != nil {
		return "", err
	}
	archive, err := initramfs.Read(base)
	if err != nil {
		return "", err
	}
	if err := addInit(ctx, archive); err != nil {
		return "", err
	}
	if k.Modules != "" {
		if err := addModules(archive, k.Modules); err != nil {
			return "", err
		}
	}
	path := filepath.Join(dir, "initrd-"+kernelName+".cpio")
	return path, archive.WriteFile(path)
}

// commands builds the archive of u-root's commands, unless the cache has it.
func commands(ctx context.Context, dir string) (string, error) {
	list, err := commandList()
	if err != nil {
		return "", err
	}
	root, err := kernel.Root()
	if err != nil {
		return "", err
	}
	key, err := sourceKey(root)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "commands-"+key+".cpio")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	temp, err := os.MkdirTemp(dir, ".u-root-*")
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(temp)
	fmt.Fprintf(os.Stderr, "build %d u-root commands\n", len(list))
	built := filepath.Join(temp, "commands.cpio")
	// goshsmall is a shell that does not redraw its line: a serial console,
	// and a test that reads one, see just what was typed.
	argv := []string{"tool", "u-root", "-o", built, "-tmp-dir", filepath.Join(temp, "build"), "-go-build-tags=goshsmall", "-defaultsh=gosh", "-initcmd="}
	if err := goCommand(ctx, root, append(argv, list...)...); err != nil {
		return "", err
	}
	return path, os.Rename(built, path)
}

// commandList returns the import paths in tools.go.
func commandList() ([]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), "tools.go", tools, parser.ImportsOnly)
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	var list []string
	for _, i := range f.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("guest: tools.go: %w", err)
		}
		list = append(list, path)
	}
	return list, nil
}

// sourceKey names the version of all that the commands are built from.
func sourceKey(root string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version())
	h.Write(tools)
	ours, err := filepath.Glob(filepath.Join(root, "guest", "telnetd", "*.go"))
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	for _, name := range append(ours, filepath.Join(root, "go.mod"), filepath.Join(root, "go.sum")) {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("guest: %w", err)
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// addInit puts our init in, and the names under which it is a command.
func addInit(ctx context.Context, a *initramfs.Archive) error {
	root, err := kernel.Root()
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "vmm-init-")
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(temp)
	built := filepath.Join(temp, "init")
	if err := goCommand(ctx, root, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", built, "./guest/init"); err != nil {
		return err
	}
	init, err := os.ReadFile(built)
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	a.File("init", 0o755, init)
	for _, name := range []string{"sh", "poweroff", "halt", "reboot", "shutdown"} {
		a.Link("bin/"+name, "../init")
	}
	a.Link("sbin/modprobe", "../init") // where the kernel looks for it
	a.Directory("root", 0o700)
	a.Directory("mnt", 0o755)
	a.File("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	a.File("etc/group", 0o644, []byte("root:x:0:\n"))
	a.File("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))
	return nil
}

// addModules puts the kernel's modules in, unpacked, and their index.
func addModules(a *initramfs.Archive, dir string) error {
	tree, err := modules.Open(dir)
	if err != nil {
		return err
	}
	order, err := tree.Order(drivers...)
	if err != nil {
		return err
	}
	for _, m := range order {
		object, err := modules.ReadFile(m.Path)
		if err != nil {
			return err
		}
		a.File("lib/modules/"+m.Name+".ko", 0o644, object)
	}
	var index bytes.Buffer
	if err := modules.Index(order).Write(&index); err != nil {
		return err
	}
	a.File("lib/modules/index", 0o644, index.Bytes())
	return nil
}

// goCommand runs the go command in the checkout, for static binaries. What it
// says is part of the error.
func goCommand(ctx context.Context, root string, argv ...string) error {
	cmd := exec.CommandContext(ctx, "go", argv...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("go %s: %w", argv[0], err), errors.New(string(bytes.TrimSpace(out))))
	}
	return nil
}

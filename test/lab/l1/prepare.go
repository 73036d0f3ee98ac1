package l1

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"vmm/guest/initramfs"
	"vmm/guest/kernel"
	"vmm/guest/modules"
	"vmm/test/lab/wire"
)

// wanted lists the modules that L1 needs beyond its kernel's built-in ones: first those for
// its own two buses, shares and wire, then those that a VMM needs.
var wanted = []string{
	"virtio_pci", "9p", "9pnet_virtio", "overlay", "virtio_console",
	"kvm_amd", "tun", "vhost_net", "vhost_vsock", "bridge",
}

// image is what QEMU boots.
type image struct{ kernel, initrd string }

// prepare fetches L1's kernel and builds its initramfs in dir, with the agent and the
// modules.
func prepare(ctx context.Context, dir string) (image, error) {
	k, err := kernel.Fetch(ctx, "generic")
	if err != nil {
		return image{}, err
	}
	tree, err := modules.Open(k.Modules)
	if err != nil {
		return image{}, err
	}
	order, err := tree.Order(wanted...)
	if err != nil {
		return image{}, err
	}
	agent, err := buildAgent(ctx, dir)
	if err != nil {
		return image{}, err
	}
	var archive initramfs.Archive
	archive.File("init", 0o755, agent)
	archive.CharDevice("dev/console", 0o600, 5, 1)
	var names strings.Builder
	for _, m := range order {
		object, err := modules.ReadFile(m.Path)
		if err != nil {
			return image{}, err
		}
		archive.File("modules/"+m.Name+".ko", 0o644, object)
		fmt.Fprintln(&names, m.Name)
	}
	archive.File("modules/order", 0o644, []byte(names.String()))
	initrd := filepath.Join(dir, "initrd.cpio")
	return image{k.Image, initrd}, archive.WriteFile(initrd)
}

func buildAgent(ctx context.Context, dir string) ([]byte, error) {
	root, err := kernel.Root()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "agent")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./test/lab/agent")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("lab: go build: %w: %s", err, out)
	}
	return os.ReadFile(path)
}

// cpu has everything that QEMU can emulate, including AMD's SVM, with two exceptions. With
// five-level page tables, QEMU up to 9 walks nested tables wrongly. Fast string instructions
// (ERMS, FSRM) are not fast: without the flags Linux moves eight bytes at a time instead of
// one, and boots in four fifths of the time.
const cpu = "max,la57=off,erms=off,fsrm=off"

// arguments returns QEMU's command line.
func (m *Machine) arguments(boot image, socket string) []string {
	accel := []string{"-accel", "tcg,thread=multi"}
	if m.config.Count {
		accel = []string{"-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off,align=off"}
	}
	kernel := "console=ttyS0 panic=-1 quiet mitigations=off"
	if m.config.TSC {
		// QEMU does not emulate an invariant TSC, but its TSC is as good.
		kernel += " tsc=reliable"
	}
	return append(accel,
		"-cpu", cpu,
		"-smp", fmt.Sprint(m.config.CPUs), "-m", fmt.Sprint(m.config.Memory),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none", "-nic", "none",
		"-serial", "file:"+quote(m.config.Log),
		"-kernel", boot.kernel, "-initrd", boot.initrd,
		"-append", kernel,
		"-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
		"-device", "virtio-9p-pci,fsdev=root,mount_tag="+wire.RootTag,
		"-fsdev", "local,id=out,path="+quote(m.config.Out)+",security_model=none",
		"-device", "virtio-9p-pci,fsdev=out,mount_tag="+wire.OutTag,
		"-chardev", "socket,id=wire,path="+quote(socket),
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=wire,name="+wire.Port,
		"-device", "virtio-rng-pci")
}

// quote protects a file name from QEMU's option parser.
func quote(name string) string { return strings.ReplaceAll(name, ",", ",,") }

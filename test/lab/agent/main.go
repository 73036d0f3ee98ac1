// Agent is /init of the lab's host L1. It makes the outer host's file system visible, then
// starts itself again to run the jobs. It remains as process 1 and collects orphans.
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"vmm/guest/modules"
)

func main() {
	if os.Getpid() != 1 {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, "lab agent:", err)
			os.Exit(1)
		}
		return
	}
	if err := boot(); err != nil {
		fmt.Fprintln(os.Stderr, "lab init:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// boot returns when the agent that runs the jobs has ended.
func boot() error {
	if err := enterRoot(); err != nil {
		return err
	}
	if err := settings(); err != nil {
		return err
	}
	agent, err := os.StartProcess("/proc/self/exe", []string{"lab-agent"}, &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("wait4", err)
		}
		if pid == agent.Pid {
			return nil
		}
	}
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}

// enterRoot makes the outer host's file system the root, and keeps all changes in memory.
func enterRoot() error {
	const p9 = "trans=virtio,version=9p2000.L,msize=524288,"
	if err := (mount{"dev", "/dev", "devtmpfs", 0, ""}).do(); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	for _, m := range []mount{
		{"root", "/lower", "9p", unix.MS_RDONLY, p9 + "cache=loose"},
		{"tmpfs", "/upper", "tmpfs", 0, "size=75%"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/upper/files", "/upper/work"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, m := range []mount{
		{"overlay", "/new", "overlay", 0, "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work"},
		{"/dev", "/new/dev", "", unix.MS_MOVE, ""},
		{"proc", "/new/proc", "proc", 0, ""},
		{"sys", "/new/sys", "sysfs", 0, ""},
		{"devpts", "/new/dev/pts", "devpts", 0, "ptmxmode=666"},
		{"shm", "/new/dev/shm", "tmpfs", 0, ""},
		{"run", "/new/run", "tmpfs", 0, "mode=755"},
		{"out", "/new/run/lab", "9p", 0, p9 + "cache=none"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	return switchRoot("/new")
}

func switchRoot(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	return os.Chdir("/")
}

// loadModules loads the modules that the lab put into the initramfs, in the given order.
func loadModules() error {
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		if err := modules.Load("/modules/" + name + ".ko"); err != nil {
			return err
		}
	}
	return nil
}

// settings applies the settings that tests expect of a host.
func settings() error {
	unix.Sethostname([]byte("lab"))
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0); err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(syscall.IFF_UP | syscall.IFF_RUNNING)
	return os.NewSyscallError("lo up", unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo))
}

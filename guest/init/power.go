package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Signals to process 1, as in other small inits.
var requests = []os.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM, unix.SIGINT}

// commandFor returns what a signal asks for. A machine that only halts would keep its
// host's memory and never end, so a halt powers off.
func commandFor(s os.Signal) int {
	if s == unix.SIGTERM || s == unix.SIGINT { // SIGINT is the kernel's Ctrl-Alt-Del
		return unix.LINUX_REBOOT_CMD_RESTART
	}
	return unix.LINUX_REBOOT_CMD_POWER_OFF
}

// How long processes may take to end, first when asked and then when killed.
const (
	askLimit  = 2 * time.Second
	killLimit = time.Second
)

// stop ends all processes, unmounts what can be unmounted, and ends the machine.
func (g *guest) stop(command, status int) {
	for _, step := range []struct {
		signal unix.Signal
		limit  time.Duration
	}{{unix.SIGTERM, askLimit}, {unix.SIGKILL, killLimit}} {
		unix.Kill(-1, step.signal)
		unix.Kill(-1, unix.SIGCONT) // a stopped process cannot end
		if g.alone(step.limit) {
			break
		}
	}
	unix.Sync()
	unmountAll()
	if g.options.exitPort != 0 {
		complain("exit port", out(g.options.exitPort, byte(status)))
	}
	complain("reboot", unix.Reboot(command))
	for { // a return would cause a kernel panic
		unix.Pause()
	}
}

// alone waits until no other process exists. It reports whether that happened in time.
func (g *guest) alone(limit time.Duration) bool {
	deadline := time.After(limit)
	for {
		g.reap()
		if errors.Is(unix.Kill(-1, 0), unix.ESRCH) {
			return true
		}
		select {
		case <-g.children:
		case <-deadline:
			return false
		}
	}
}

// unmountAll unmounts all file systems except the kernel's own, the newest first, so that
// disks are clean.
func unmountAll() {
	mounts, err := os.ReadFile("/proc/mounts")
	complain("unmount", err)
	for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) {
		fields := strings.Fields(line)
		if len(fields) < 3 || slices.Contains([]string{"rootfs", "proc", "sysfs", "devtmpfs", "devpts", "tmpfs"}, fields[2]) {
			continue
		}
		target := unescape(fields[1])
		if err := unix.Unmount(target, 0); err != nil {
			// Busy: at least no data must be left to write.
			complain(target, unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		}
	}
}

// unescape undoes the octal escapes of /proc/mounts.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// applet is this program when it runs under a name other than /init.
func applet(name string, args []string) int {
	switch name {
	case "sh":
		// u-root's combined binary knows itself only as gosh.
		complain(shell, unix.Exec(shell, append([]string{"gosh"}, args...), os.Environ()))
		return 127
	case "modprobe":
		return modprobe(args)
	case "reboot":
		return ask(unix.SIGTERM)
	case "poweroff", "halt":
		return ask(unix.SIGUSR2)
	case "shutdown":
		if slices.Contains(args, "-r") || slices.Contains(args, "reboot") {
			return ask(unix.SIGTERM)
		}
		return ask(unix.SIGUSR2)
	}
	fmt.Fprintf(os.Stderr, "%s: this is the guest's process 1; as a command it is sh, poweroff, halt, reboot, shutdown or modprobe\n", name)
	return 2
}

// ask sends process 1 a request and waits for the end.
func ask(s unix.Signal) int {
	if err := unix.Kill(1, s); err != nil {
		complain("process 1", err)
		return 1
	}
	unix.Pause() // until process 1 ends all others
	return 0
}

package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	shell = "/bbin/gosh"
	// A shell that fails this many times in a row, each time at once, will not work.
	quickLimit = 10
)

// serve runs the session and handles requests to process 1. It ends with the machine.
func (g *guest) serve() {
	g.openConsole()
	if !g.options.quiet && g.options.exec == "" {
		g.greet()
	}
	g.start()
	began := time.Now()
	for {
		select {
		case <-g.children:
			status, ended := g.reap()
			if !ended {
				continue
			}
			if time.Since(began) > time.Second {
				g.quick = 0
			}
			if g.over(status) {
				g.stop(unix.LINUX_REBOOT_CMD_POWER_OFF, exitStatus(status))
			}
			g.start()
			began = time.Now()
		case s := <-g.requests:
			g.stop(commandFor(s), 0)
		case <-g.button:
			fmt.Println("vmm-init: power button")
			g.stop(unix.LINUX_REBOOT_CMD_POWER_OFF, 0)
		}
	}
}

// over reports whether the end of the session is the end of the machine. A shell that ends
// because of what was typed (gosh ends at a syntax error) is started again.
func (g *guest) over(s unix.WaitStatus) bool {
	g.quick++
	return g.options.exec != "" || s.Exited() && s.ExitStatus() == 0 || g.quick > quickLimit
}

// exitStatus returns what a shell calls $?.
func exitStatus(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// start starts the session in the foreground of the console, so that Ctrl-C reaches the
// programs there and not this process.
func (g *guest) start() {
	argv := []string{shell}
	if g.options.exec != "" {
		argv = append(argv, "-c", g.options.exec)
	}
	home := "/root"
	os.MkdirAll(home, 0o700)
	console := g.console.Fd()
	pid, err := syscall.ForkExec(shell, argv, &syscall.ProcAttr{
		Dir: home, Env: environment(os.Environ()), Files: []uintptr{console, console, console},
		Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: int(console)},
	})
	if err != nil {
		complain(shell, err)
		g.stop(unix.LINUX_REBOOT_CMD_POWER_OFF, 127)
	}
	g.session = pid
}

// environment returns the session's environment. The kernel passes on the words of its
// command line that it does not know, such as TERM=....
func environment(fromKernel []string) []string {
	env := []string{"PATH=/bin:/bbin", "HOME=/root", "USER=root", "SHELL=/bin/sh"}
	term := "TERM=vt100"
	for _, e := range fromKernel {
		if strings.HasPrefix(e, "TERM=") && e != "TERM=linux" { // linux is the kernel's own default
			term = e
		}
	}
	return append(env, term)
}

// reap collects ended processes: the session, and any orphans.
func (g *guest) reap() (status unix.WaitStatus, sessionEnded bool) {
	for {
		var s unix.WaitStatus
		pid, err := unix.Wait4(-1, &s, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || pid == 0:
			return status, sessionEnded
		case pid == g.session:
			status, sessionEnded = s, true
		}
	}
}

// openConsole opens the terminal behind /dev/console, which cannot be a controlling
// terminal itself, and makes it this process's controlling terminal. It must not be the
// shell's: when the session leader ends, the terminal is hung up, and what was typed
// ahead is lost.
func (g *guest) openConsole() {
	path := "/dev/console"
	active, err := os.ReadFile("/sys/class/tty/console/active")
	complain("console", err)
	if names := strings.Fields(string(active)); len(names) > 0 {
		path = "/dev/" + names[len(names)-1]
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		complain(path, err)
		g.console = os.Stdin
		return
	}
	g.console = os.NewFile(uintptr(fd), path)
	// The kernel may have given this process another console: one that existed before the
	// drivers were loaded.
	for standard := range 3 {
		complain(path, unix.Dup3(fd, standard, 0))
	}
	_, err = unix.Setsid()
	complain("session", err)
	complain(path, unix.IoctlSetInt(fd, unix.TIOCSCTTY, 0))
}

func (g *guest) greet() {
	var name unix.Utsname
	var info unix.Sysinfo_t
	unix.Uname(&name)
	unix.Sysinfo(&info)
	fmt.Printf("Linux %s, %d MiB. \"poweroff\" or Ctrl-D ends.\n",
		unix.ByteSliceToString(name.Release[:]), info.Totalram*uint64(info.Unit)>>20)
}

// Init is /init of the guest's initramfs: it mounts the file systems, loads the drivers
// of the devices that exist, runs a shell or one command on the console, and turns the
// machine off. docs/guest.md has its contract.
//
// It prints its first line before anything else, because boot time is measured to that
// moment.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		os.Exit(applet(filepath.Base(os.Args[0]), os.Args[1:]))
	}
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	fmt.Printf("vmm-init: up %d.%06d\n", now.Sec, now.Nsec/1000)

	g := &guest{children: make(chan os.Signal, 1), requests: make(chan os.Signal, 4), button: make(chan struct{}, 1)}
	signal.Notify(g.children, unix.SIGCHLD)
	signal.Notify(g.requests, requests...)
	// Without a receiver these signals would end process 1, and so the kernel.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGQUIT)
	g.mount()
	g.options = readOptions()
	g.coldplug()
	g.keepTime()
	g.watchPorts()
	g.mountShares()
	g.network()
	g.shell()
	g.watchButton()
	g.serve()
}

// guest is the running system. Only the first goroutine uses it; others send
// on its channels.
type guest struct {
	options  options
	console  *os.File
	session  int // process id of the shell or command
	quick    int // sessions in a row that failed at once
	children chan os.Signal
	requests chan os.Signal
	button   chan struct{}
}

// complain reports a fault of the guest on the console. No such fault is worth a kernel
// panic.
func complain(object string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "vmm-init: %s: %v\n", object, err)
	}
}

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Where the kernel lists the ports of virtio consoles, and where programs look for them, as
// with udev.
const (
	portClass = "/sys/class/virtio-ports"
	portLinks = "/dev/virtio-ports"
)

// watchPorts links the ports of virtio consoles by name. The names come after the ports do,
// and the kernel announces each with an event.
func (g *guest) watchPorts() {
	if _, err := os.Stat(portClass); errors.Is(err, fs.ErrNotExist) {
		return // the driver would have made the directory
	}
	const kernelEvents = 1
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err == nil {
		err = unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelEvents})
	}
	if err != nil {
		complain("events of the kernel", err)
		return
	}
	linkPorts(portClass, portLinks)
	go func() {
		defer unix.Close(s)
		b := make([]byte, 8192)
		for {
			n, err := unix.Read(s, b)
			switch {
			case err == unix.EINTR || err == unix.ENOBUFS: // events may have been lost: look anyway
			case err != nil:
				complain("events of the kernel", err)
				return
			case !bytes.Contains(b[:n], []byte("SUBSYSTEM=virtio-ports\x00")):
				continue
			}
			linkPorts(portClass, portLinks)
		}
	}()
}

// linkPorts makes a link in the folder links for each port of class that has a name by
// now.
func linkPorts(class, links string) {
	names, _ := filepath.Glob(filepath.Join(class, "*", "name"))
	for _, path := range names {
		b, err := os.ReadFile(path)
		name := strings.TrimSpace(string(b))
		if err != nil || name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
			continue
		}
		complain(links, os.MkdirAll(links, 0o755))
		err = os.Symlink("../"+filepath.Base(filepath.Dir(path)), filepath.Join(links, name))
		if !errors.Is(err, fs.ErrExist) {
			complain(links, err)
		}
	}
}

package main

import (
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// mount mounts the kernel's file systems.
func (g *guest) mount() {
	const noexec = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	for _, m := range []struct {
		kind, target string
		flags        uintptr
		data         string
	}{
		{"proc", "/proc", noexec, ""},
		{"sysfs", "/sys", noexec, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"tmpfs", "/tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	} {
		complain(m.target, os.MkdirAll(m.target, 0o755))
		complain(m.target, unix.Mount(m.kind, m.target, m.kind, m.flags, m.data))
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2",
	} {
		os.Symlink(target, link) // some kernels make them
	}
}

// network sets the host name and brings up the loopback and the first network card, if
// there is one. The card gets its address by DHCP unless the options give one.
func (g *guest) network() {
	complain("hostname", unix.Sethostname([]byte(g.options.hostname)))
	complain("lo", up("lo"))
	address, gateway, _ := strings.Cut(g.options.ip, ",")
	switch _, err := os.Stat("/sys/class/net/eth0"); {
	case address == "none":
		return
	case address == "" || address == "dhcp":
		if err == nil {
			complain("dhclient", dhcp("eth0"))
		}
		return
	}
	run := func(argv ...string) {
		out, err := exec.Command("/bbin/ip", argv...).CombinedOutput()
		if err != nil {
			os.Stderr.Write(out)
		}
		complain("ip "+strings.Join(argv, " "), err)
	}
	complain("eth0", up("eth0"))
	run("addr", "add", address, "dev", "eth0")
	if gateway != "" {
		run("route", "add", "default", "via", gateway, "dev", "eth0")
	}
	if g.options.dns != "" {
		complain("/etc/resolv.conf", os.WriteFile("/etc/resolv.conf", []byte("nameserver "+g.options.dns+"\n"), 0o644))
	}
}

// dhcp configures a card in the background, because the shell must not wait for a network
// that may not answer. serve reaps the client, like every other process.
func dhcp(card string) error {
	log, err := os.Create("/run/dhclient.log")
	if err != nil {
		return err
	}
	defer log.Close()
	client := exec.Command("/bbin/dhclient", "-ipv6=false", "-retry", "10", "-timeout", "3", card)
	client.Stdout, client.Stderr = log, log
	return client.Start()
}

// shell gives the host a shell, if the options say so. serve reaps it, like every other
// process.
func (g *guest) shell() {
	if g.options.shell == "" {
		return
	}
	server := exec.Command("/bbin/telnetd", "vsock:"+g.options.shell)
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	complain("telnetd", server.Start())
}

// up brings a network interface up.
func up(name string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, r); err != nil {
		return os.NewSyscallError("flags", err)
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	return os.NewSyscallError("up", unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r))
}

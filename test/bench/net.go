package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// netMetrics are the figures of a run; out is its value.
var netMetrics = []metric{
	{name: "out", unit: "MB/s", digits: 1, more: true},
	{name: "in", unit: "MB/s", digits: 1, more: true},
	{name: "rtt", unit: "µs"},
	{name: "cpu-out", unit: "µs/KiB", digits: 2},
	{name: "cpu-in", unit: "µs/KiB", digits: 2},
	{name: "cpu-rtt", unit: "µs"},
}

// Where the guest finds the host's services: on a tap, at the host's address there; in
// user mode, at the gateway, which is the host's loopback.
const (
	benchTap             = "vmmbench0"
	hostAddress          = "10.0.2.2"
	sinkPort, sourcePort = 7001, 7002
	echoPort             = 7003
	netWords             = "vmm.ip=10.0.2.15/24 vmm.exec=/netguest"
)

// newTap compares cards on a tap; the baseline is QEMU without vhost in the kernel.
func newTap(f files) *report {
	return newNet(f, "tap", "qemu-q35 tap", []rival{
		{"vmm tap", "virtio-net over PCI", vmm("direct", files.warm, "--net", "tap="+benchTap)},
		{"qemu-q35 tap", "virtio-net-pci, vhost=off", qemuNet("tap,ifname=" + benchTap + ",script=no,downscript=no,vhost=off")},
		{"qemu-q35 vhost", "virtio-net-pci, vhost=on: packets move in the kernel", qemuNet("tap,ifname=" + benchTap + ",script=no,downscript=no,vhost=on")},
	})
}

// newUser compares networks that need no privilege.
func newUser(f files) *report {
	return newNet(f, "user", "qemu-q35 user", []rival{
		{"vmm user", "virtio-net over PCI, netstack", vmm("direct", files.warm, "--net", "user,host-loopback")},
		{"qemu-q35 user", "virtio-net-pci, slirp", qemuNet("user")},
	})
}

func qemuNet(netdev string) func(files, int) ([]string, error) {
	return qemuMachine("q35", "-name", "guest,debug-threads=on", "-netdev", netdev+",id=n", "-device", "virtio-net-pci,netdev=n,romfile=")
}

func newNet(f files, name, baseline string, rivals []rival) *report {
	r := &report{Bench: name, Unit: "MB/s", Digits: 1, metrics: netMetrics, baseline: baseline, Notes: []string{
		"TCP between a guest of 1 vCPU and 256 MiB and the host: out of the guest, into it, and one byte there and back.",
		"cpu: time on a processor of the VMM's threads other than vCPUs; what the kernel does for vhost is in none of them.",
	}}
	f.initrd = f.netInitrd()
	argv := func(ctx context.Context, v rival) ([]string, error) {
		if err := netServices(ctx, name == "tap"); err != nil {
			return nil, err
		}
		return withWords(v, f, netWords)
	}
	r.followPhases(rivals, argv, "out", netFigures)
	return r
}

func (f files) netInitrd() string { return filepath.Join(f.results, "initrd-net.cpio") }

func prepareNet(ctx context.Context, f files) error {
	return f.addProgram(ctx, "netguest", f.netInitrd())
}

// serving is set once the services run.
var serving bool

// netServices starts the host's side once: the tap, and the listeners.
func netServices(ctx context.Context, tap bool) error {
	if serving {
		return nil
	}
	if tap {
		os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
		for _, line := range []string{"tuntap add dev " + benchTap + " mode tap", "addr add " + hostAddress + "/24 dev " + benchTap, "link set " + benchTap + " up"} {
			if out, err := exec.CommandContext(ctx, "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", line, err, out)
			}
		}
	}
	for port, serve := range services {
		l, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			return err
		}
		go serveAll(l, serve)
	}
	serving = true
	return nil
}

// services are the host's services for the guest, by port.
var services = map[int]func(net.Conn){
	sinkPort: func(c net.Conn) {
		io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 1<<18))
	},
	sourcePort: func(c net.Conn) {
		io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{zeros{}}, make([]byte, 1<<18))
	},
	echoPort: func(c net.Conn) { io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) },
}

// serveAll serves connections until l is closed.
func serveAll(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// netFigures computes the figures of a phase of netguest: operations are bytes, or
// round trips.
func netFigures(parts map[string]float64, p phase) error {
	if p.operations <= 0 || p.took <= 0 {
		return errors.New("nothing moved")
	}
	unit := p.operations / 1024
	if p.name == "rtt" {
		unit = p.operations
		parts[p.name] = float64(p.took) / float64(time.Microsecond) / p.operations
	} else {
		parts[p.name] = p.operations / 1e6 / p.took.Seconds()
	}
	if used, ok := workerTime(p.before, p.after); ok {
		parts["cpu-"+p.name] = float64(used) / float64(time.Microsecond) / unit
	}
	return nil
}

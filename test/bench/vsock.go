package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/mdlayher/vsock"
)

const (
	vsockWords = `vmm.ip=none vmm.exec="/netguest vsock"`
	vsockCID   = "7" // of QEMU's guest: unique in the kernel
)

// newVsock compares sockets that need no network, and one rival that uses a network.
func newVsock(f files) *report {
	r := &report{Bench: "vsock", Unit: "MB/s", Digits: 1, metrics: netMetrics, baseline: "vmm user", Notes: []string{
		"Streams between a guest of 1 vCPU and 256 MiB and the host: out of the guest, into it, and one byte there and back.",
		"cpu: time on a processor of the VMM's threads other than vCPUs; what the kernel does for vhost is in none of them.",
	}}
	f.initrd = f.netInitrd()
	rivals := []rival{
		{"vmm vsock", "virtio-vsock over PCI, Unix sockets", vmmVsock},
		{"vmm user", "TCP by virtio-net over PCI, netstack", vmm("direct", files.warm, "--net", "user,host-loopback")},
		{"qemu-q35 vhost-vsock", "vhost-vsock-pci, AF_VSOCK sockets: packets move in the kernel", qemuMachine("q35",
			"-name", "guest,debug-threads=on", "-device", "vhost-vsock-pci,guest-cid="+vsockCID)},
	}
	argv := func(ctx context.Context, v rival) ([]string, error) {
		if v.name == "vmm user" {
			if err := netServices(ctx, false); err != nil {
				return nil, err
			}
			return withWords(v, f, netWords)
		}
		if err := vsockServices(f); err != nil {
			return nil, err
		}
		return withWords(v, f, vsockWords)
	}
	r.followPhases(rivals, argv, "out", netFigures)
	return r
}

func (f files) vsock() string { return filepath.Join(f.scratch, "vsock") }

func vmmVsock(f files, mib int) ([]string, error) {
	return vmm("direct", files.warm, "--vsock", f.vsock())(f, mib)
}

// servingVsock is set once the services run.
var servingVsock bool

// vsockServices starts the host's side once, for vmm's guests and for vhost's guests,
// which need /dev/vhost-vsock.
func vsockServices(f files) error {
	if servingVsock {
		return nil
	}
	for port, serve := range services {
		l, err := net.Listen("unix", fmt.Sprintf("%s_%d", f.vsock(), port))
		if err != nil {
			return err
		}
		go serveAll(l, serve)
		if _, err := os.Stat("/dev/vhost-vsock"); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if l, err = vsock.Listen(uint32(port), nil); err != nil {
			return err
		}
		go serveAll(l, serve)
	}
	servingVsock = true
	return nil
}

package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// image creates a disk image of n bytes that begins with text.
func image(t *testing.T, n int, text string) string {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, append([]byte(text), make([]byte, n-len(text))...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDisks: a stock kernel finds two disks and the entropy device over each transport,
// with every kind of interrupt, and its writes reach the image.
func TestDisks(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags []string
		see   string // expected in the kernel's interrupts
	}{
		{"pci", nil, "virtio1-req.0"},
		{"pci=nomsi", []string{"-a", "pci=nomsi"}, "fasteoi   virtio1"},
		{"mmio", []string{"--transport", "mmio"}, "-edge      virtio1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			need(t, cloud)
			first := image(t, 1<<20, "what the host wrote\n")
			second := image(t, 8<<20, "")
			flags := append(test.flags, "-m", "256M", "-a", "quiet", "--disk", first+",ro,serial=first-disk", "--disk", second+",queues=2,direct=off")
			attempt(t, func() *guest { return onPipes(cloud.args(flags...)...) }, func(g *guest) {
				g.prompt()
				g.do("dd if=/dev/vda bs=512 count=1", "what the host wrote")
				g.do("cat /sys/block/vda/serial", "first-disk")
				g.do("cat /sys/block/vda/ro /sys/block/vdb/ro", "1\r\n0")
				g.do("cat /sys/block/vdb/size", "16384")
				g.do("cat /proc/interrupts", test.see)
				g.do("cat /sys/class/misc/hw_random/rng_available", "virtio_rng.")
				g.do("echo what the guest wrote > /dev/vdb; sync; echo done", "done\r\n")
				g.send("poweroff\n")
				g.status(0)
			})
			b, err := os.ReadFile(second)
			if err != nil || !bytes.HasPrefix(b, []byte("what the guest wrote\n")) {
				t.Errorf("%v: the image begins with %q", err, b[:min(len(b), 40)])
			}
		})
	}
}

// TestDiskInUse: a disk has no second writer, and a restarting guest keeps its disk.
func TestDiskInUse(t *testing.T) {
	need(t, cloud)
	disk := image(t, 1<<20, "")
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "-a", "quiet", "--disk", disk, "--on-reboot", "restart")...)
	}, func(g *guest) {
		g.prompt()
		second := onPipes(cloud.args("-m", "256M", "--disk", disk)...)
		second.status(3)
		if out := second.tail(1000); !strings.Contains(out, disk) || !strings.Contains(out, "use") {
			fail(false, "the second writer is told %q", out)
		}
		g.do("echo first life > /dev/vda; sync; echo done", "done\r\n")
		g.send("reboot\n")
		g.expect("vmm-init: up")
		g.prompt()
		g.do("dd if=/dev/vda bs=512 count=1", "first life")
		g.send("poweroff\n")
		g.status(0)
	})
}

package boot

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
)

// TestKernels boots every kernel in every way that it offers.
func TestKernels(t *testing.T) {
	for _, test := range []struct {
		kernel kernel
		mode   string
		log    string // what vmm says of how it started the kernel
	}{
		{cloud, "auto", "mode=direct"},
		{cloud, "bzimage", "mode=bzimage"},
		{cloud, "pvh", "mode=pvh"},
		{generic, "direct", "mode=direct"},
		{generic, "bzimage", "mode=bzimage"},
		{cpu, "auto", "mode=direct"},
		{cpu, "bzimage", "mode=bzimage"},
	} {
		t.Run(string(test.kernel)+"/"+test.mode, func(t *testing.T) {
			need(t, test.kernel)
			attempt(t, func() *guest {
				return onPipes(test.kernel.args("--boot", test.mode, "-m", "256M", "--log-level", "info")...)
			}, func(g *guest) {
				g.expect(test.log)
				g.expect("ttyS0 at I/O 0x3f8")
				g.expect("is a 16550A")
				g.expect("vmm-init: up")
				g.prompt()
				g.do("uname -s -m", "Linux x86_64")
				g.send("poweroff\n")
				g.status(0)
			})
		})
	}
}

// TestVmlinux boots the ELF that is inside of a bzImage.
func TestVmlinux(t *testing.T) {
	need(t, cloud)
	path := unpack(t, cloud)
	for _, mode := range []string{"auto", "pvh"} {
		t.Run(mode, func(t *testing.T) {
			attempt(t, func() *guest {
				return onPipes("run", "-k", path, "-i", cloud.initrd(), "-m", "256M", "--boot", mode)
			}, func(g *guest) {
				g.expect("vmm-init: up")
				g.prompt()
				g.send("exit\n")
				g.status(0)
			})
		})
	}
}

// unpack writes the payload of an lz4 bzImage to a file.
func unpack(t *testing.T, k kernel) string {
	image, err := os.ReadFile(k.image())
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	start := (int(image[0x1f1])+1)*512 + int(le.Uint32(image[0x248:]))
	payload := image[start : start+int(le.Uint32(image[0x24c:]))-4] // the last 4 bytes are its size
	path := filepath.Join(t.TempDir(), "vmlinux")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, lz4.NewReader(strings.NewReader(string(payload)))); err != nil {
		t.Fatal(err)
	}
	if _, err := elf.NewFile(f); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCache: the second start maps the kernel that the first has unpacked.
func TestCache(t *testing.T) {
	need(t, cloud)
	dir := t.TempDir()
	for _, cached := range []bool{false, true} {
		attempt(t, func() *guest {
			return onPipes(cloud.args("-m", "256M", "--kernel-cache", filepath.Join(dir, "c"), "--log-level", "info")...)
		}, func(g *guest) {
			g.expect(fmt.Sprintf("cached=%v", cached))
			g.prompt()
			g.send("exit\n")
			g.status(0)
		})
	}
}

func TestCPUs(t *testing.T) {
	for _, n := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			need(t, cloud)
			attempt(t, func() *guest {
				return onPipes(cloud.args("-c", fmt.Sprint(n), "-a", "quiet")...)
			}, func(g *guest) {
				g.prompt()
				g.do("cat /sys/devices/system/cpu/online", map[int]string{1: "0\r\n", 2: "0-1\r\n", 4: "0-3\r\n"}[n])
				g.do("grep -c processor /proc/cpuinfo", fmt.Sprint(n))
				g.do(fmt.Sprintf("cat /sys/devices/system/cpu/cpu%d/topology/core_id", n-1), fmt.Sprint(n-1))
				g.do("cat /sys/devices/system/clocksource/clocksource0/current_clocksource", "kvm-clock")
				g.send("poweroff\n")
				g.status(0)
			})
		})
	}
}

func TestMemory(t *testing.T) {
	for _, test := range []struct {
		kernel  kernel
		size    string
		atLeast int // MiB that the guest has
	}{
		{cpu, "64M", 30},
		{cloud, "5G", 4800},
	} {
		t.Run(test.size, func(t *testing.T) {
			need(t, test.kernel)
			attempt(t, func() *guest {
				return onPipes(test.kernel.args("-m", test.size, "-a", "quiet", "-a", execution("cat /proc/meminfo"))...)
			}, func(g *guest) {
				g.expect("MemTotal:")
				g.expect("DirectMap")
				g.status(64)
				var kib int
				_, after, _ := strings.Cut(g.tail(1<<20), "MemTotal:")
				fmt.Sscan(after, &kib)
				if kib>>10 < test.atLeast {
					fail(false, "the guest has %d MiB, want %d at least", kib>>10, test.atLeast)
				}
			})
		})
	}
}

// TestInitrds: two initrds are one file system.
func TestInitrds(t *testing.T) {
	need(t, cpu)
	extra := filepath.Join(t.TempDir(), "extra.cpio")
	if err := os.WriteFile(extra, newc("from-second-initrd", "it is here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	attempt(t, func() *guest {
		return onPipes(cpu.args("-i", extra, "-m", "256M", "-a", "quiet", "-a", execution("cat /from-second-initrd"))...)
	}, func(g *guest) {
		g.expect("it is here")
		g.status(64)
	})
}

// newc is a cpio archive of one file.
func newc(name, data string) []byte {
	entry := func(mode, nlink int, name, data string) string {
		pad := func(s string) string { return s + strings.Repeat("\x00", -len(s)&3) }
		h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			1, mode, 0, 0, nlink, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		return pad(h+name+"\x00") + pad(data)
	}
	return []byte(entry(0o100755, 1, name, data) + entry(0, 1, "TRAILER!!!", ""))
}

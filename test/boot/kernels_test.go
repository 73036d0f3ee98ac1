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

	"vmm/guest/payload"
)

// TestKernels boots every kernel in every way that it supports.
func TestKernels(t *testing.T) {
	for _, test := range []struct {
		kernel kernel
		mode   string
		log    string // what vmm logs about how it started the kernel
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
				return onPipes(test.kernel.args("--boot", test.mode, "-m", "256M", "-a", "quiet", "--log-level", "info")...)
			}, func(g *guest) {
				g.expect(test.log)
				g.expect("vmm-init: up")
				g.prompt()
				g.do("dmesg | grep ttyS0", "is a 16550A")
				g.do("uname -s -m", "Linux x86_64")
				g.send("poweroff\n")
				g.status(0)
			})
		})
	}
}

// TestVmlinux boots the ELF inside a bzImage.
func TestVmlinux(t *testing.T) {
	need(t, cloud)
	path := unpack(t, cloud)
	for _, mode := range []string{"auto", "pvh"} {
		t.Run(mode, func(t *testing.T) {
			attempt(t, func() *guest {
				return onPipes("run", "-k", path, "--initrd", cloud.initrd(), "-m", "256M", "-a", "quiet", "--boot", mode)
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

// TestCache: the second start maps the kernel that the first unpacked.
func TestCache(t *testing.T) {
	need(t, cloud)
	dir := t.TempDir()
	for _, cached := range []bool{false, true} {
		attempt(t, func() *guest {
			return onPipes(cloud.args("-m", "256M", "-a", "quiet", "--kernel-cache", filepath.Join(dir, "c"), "--log-level", "info")...)
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

// TestSmall: 64 MiB is enough for a kernel and a small init, but not for our initramfs.
func TestSmall(t *testing.T) {
	need(t, cpu)
	initrd := filepath.Join(t.TempDir(), "init.cpio")
	if err := os.WriteFile(initrd, newc("init", string(payload.ELF(smallInit("small but up\n")))), 0o600); err != nil {
		t.Fatal(err)
	}
	attempt(t, func() *guest {
		return onPipes("run", "-k", cpu.image(), "--initrd", initrd, "-m", "64M", "-a", "quiet")
	}, func(g *guest) {
		g.expect("small but up")
		g.status(0)
	})
}

// smallInit is write(1, text); reboot(RB_POWER_OFF).
func smallInit(text string) []byte {
	le := binary.LittleEndian
	code := []byte{
		0xb8, 1, 0, 0, 0, // MOV EAX, SYS_write
		0xbf, 1, 0, 0, 0, // MOV EDI, 1
		0x48, 0x8d, 0x35, 32, 0, 0, 0, // LEA RSI, [RIP+32]: the text
		0xba, 0, 0, 0, 0, // MOV EDX, len(text)
		0x0f, 0x05, // SYSCALL
		0xb8, 169, 0, 0, 0, // MOV EAX, SYS_reboot
		0xbf, 0xad, 0xde, 0xe1, 0xfe, // MOV EDI, LINUX_REBOOT_MAGIC1
		0xbe, 0x69, 0x19, 0x12, 0x28, // MOV ESI, LINUX_REBOOT_MAGIC2
		0xba, 0xdc, 0xfe, 0x21, 0x43, // MOV EDX, LINUX_REBOOT_CMD_POWER_OFF
		0x0f, 0x05, // SYSCALL
		0xeb, 0xfe, // JMP to itself
	}
	le.PutUint32(code[18:], uint32(len(text)))
	text = strings.Repeat("\x00", 49-len(code)) + text // where LEA expects it: 17 + 32
	return append(code, text...)
}

// TestLarge uses memory on both sides of the hole below 4 GiB.
func TestLarge(t *testing.T) {
	need(t, cloud)
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "5G", "-a", "quiet", "--initrd", tool(t), "-a", execution("/tool memory"))...)
	}, func(g *guest) {
		g.expect("MEMORY ")
		g.status(64)
		_, after, _ := strings.Cut(g.tail(1<<20), "MEMORY ")
		mib := 0
		if fmt.Sscan(after, &mib); mib < 4800 {
			fail(false, "the guest has %d MiB of 5 GiB", mib)
		}
	})
}

// TestInitrds: two initrds form one file system.
func TestInitrds(t *testing.T) {
	need(t, cpu)
	extra := filepath.Join(t.TempDir(), "extra.cpio")
	if err := os.WriteFile(extra, newc("from-second-initrd", "it is here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	attempt(t, func() *guest {
		return onPipes(cpu.args("--initrd", extra, "-m", "256M", "-a", "quiet", "-a", execution("cat /from-second-initrd"))...)
	}, func(g *guest) {
		g.expect("it is here")
		g.status(64)
	})
}

// newc returns a cpio archive of one file.
func newc(name, data string) []byte {
	entry := func(mode, nlink int, name, data string) string {
		pad := func(s string) string { return s + strings.Repeat("\x00", -len(s)&3) }
		h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			1, mode, 0, 0, nlink, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		return pad(h+name+"\x00") + pad(data)
	}
	return []byte(entry(0o100755, 1, name, data) + entry(0, 1, "TRAILER!!!", ""))
}

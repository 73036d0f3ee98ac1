package boot

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/creack/pty"
)

// resize changes the terminal's size, as a person does by dragging a window's edge.
func (g *guest) resize(cols, rows uint16) {
	if err := pty.Setsize(g.tty, &pty.Winsize{Cols: cols, Rows: rows}); err != nil {
		fail(false, "resize: %v", err)
	}
}

// TestConsoleVirtio acts as a person at a terminal that is the guest's hvc0. It tests
// the output before the driver exists, keys, job control, and the terminal's size,
// which a guest program follows.
func TestConsoleVirtio(t *testing.T) {
	need(t, cloud)
	attempt(t, func() *guest {
		return onTerminal(cloud.args("-m", "256M", "--console", "virtio", "--initrd", tool(t))...)
	}, func(g *guest) {
		g.resize(132, 43)
		g.expect("Linux version") // on the serial port
		g.prompt()                // on hvc0
		g.do("cat /sys/class/tty/console/active", "ttyS0 hvc0")
		g.send("/tool size 2\n")
		g.expect("SIZE 132 x 43")
		g.resize(80, 24)
		g.expect("SIZE 80 x 24")
		g.resize(101, 202)
		g.expect("SIZE 101 x 202")
		g.prompt()
		g.send("sleep 1000\n")
		g.expect("sleep 1000")
		time.Sleep(500 * time.Millisecond) // until the shell has started it
		g.send("\x03")
		g.prompt()
		g.do("echo still $((40+2))", "still 42")
		g.do("echo 1 > /proc/sys/kernel/sysrq", "")
		g.send("\x01bh") // a break, and the SysRq key for help
		g.expect("sysrq: HELP")
		g.send("\n")
		g.prompt()
		g.send("poweroff\n")
		g.status(0)
		if !echoes(g) {
			fail(false, "the terminal is not restored")
		}
	})
}

// TestDistroConsole: a full Debian has hvc0 as its console, with a login that follows
// the terminal's size.
func TestDistroConsole(t *testing.T) {
	need(t)
	dir := distro(t)
	if !soak {
		t.Skip("a minute and more; VMM_SOAK=1 runs it")
	}
	disk := filepath.Join(t.TempDir(), "root.img")
	attempt(t, func() *guest {
		if err := copySparse(disk, filepath.Join(dir, "root.img")); err != nil {
			t.Fatal(err)
		}
		return onTerminal("run", "--kernel", filepath.Join(dir, "vmlinuz"), "--initrd", filepath.Join(dir, "initrd.img"), "--cpus", "2", "--memory", "1G",
			"--disk", disk, "--append", "root=/dev/vda rw quiet", "--net", "none", "--console", "virtio", "--console-port", "org.test.0=file:"+filepath.Join(t.TempDir(), "f"))
	}, func(g *guest) {
		const shell = ":~# "
		g.resize(120, 40)
		g.patiently(func() { g.expect("debian login: ") })
		g.send("root\n")
		g.patiently(func() { g.expect(shell) })
		for _, step := range []step{
			{"tty", "/dev/hvc0"},
			{"stty size", "40 120"},
			{"ls /dev/virtio-ports", "org.test.0"},
			{"free -m | head -2", "Mem:"},
		} {
			g.send(step.command + "\n")
			g.expect("\r\n")
			g.patiently(func() { g.expect(step.shows) })
			g.expect(shell)
		}
		g.resize(90, 30)
		g.send("stty size\n")
		g.expect("30 90")
		g.expect(shell)
		g.send("poweroff\n")
		g.patiently(func() { g.status(0) })
	})
}

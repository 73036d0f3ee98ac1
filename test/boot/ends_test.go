package boot

import (
	"strings"
	"syscall"
	"testing"
)

// TestEnds: every way in which a guest ends, and the exit status that reports it.
func TestEnds(t *testing.T) {
	for _, test := range []struct {
		name, cmdline, command string
		status                 int
	}{
		{"poweroff", "", "poweroff", 0},
		{"reboot", "", "reboot", 10},
		{"reboot=k", "reboot=k", "reboot", 10},
		{"reboot=a", "reboot=a", "reboot", 10},
		{"reboot=p", "reboot=p", "reboot", 10},
		{"reboot=t", "reboot=t", "reboot", 11},
		{"panic", "", "echo c > /proc/sysrq-trigger", 12},
		{"debug exit", execution("exit 7"), "", 71},
	} {
		t.Run(test.name, func(t *testing.T) {
			need(t, cloud)
			attempt(t, func() *guest {
				return onPipes(cloud.args("-m", "256M", "-a", "quiet", "-a", test.cmdline)...)
			}, func(g *guest) {
				if test.command != "" {
					g.prompt()
					g.send(test.command + "\n")
				}
				g.status(test.status)
			})
		})
	}
}

// TestEarlyPanic: without an init there is no driver that could report the
// panic; panic=-1 makes it a reset.
func TestEarlyPanic(t *testing.T) {
	need(t, cloud)
	attempt(t, func() *guest {
		return onPipes("run", "-k", cloud.image(), "-m", "256M", "-a", "quiet")
	}, func(g *guest) {
		g.expect("Kernel panic - not syncing")
		g.status(10)
	})
}

func TestRestart(t *testing.T) {
	need(t, cloud)
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "-a", "quiet", "--on-reboot", "restart")...)
	}, func(g *guest) {
		g.prompt()
		g.do("touch /run/first-life; ls /run", "first-life")
		g.send("reboot\n")
		g.expect("vmm-init: up")
		g.prompt()
		g.send("ls /run | grep -c first-life\n")
		g.expect("0\r\n")
		g.prompt()
		g.send("poweroff\n")
		g.status(0)
	})
}

// TestSignals: the first signal presses the power button. The guest's init handles it
// as soon as it can, also during boot and in sleep. The second signal stops the guest
// at once.
func TestSignals(t *testing.T) {
	need(t, cloud)
	boot := func(more ...string) func() *guest {
		return func() *guest {
			return onPipes(cloud.args(append([]string{"-m", "256M", "-a", "quiet"}, more...)...)...)
		}
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			attempt(t, boot(), func(g *guest) {
				g.prompt()
				g.signal(s)
				g.status(0)
			})
		})
	}
	t.Run("twice", func(t *testing.T) {
		attempt(t, boot(), func(g *guest) {
			g.expect("vmm-init: up")
			g.signal(syscall.SIGSTOP) // so that both are pending when it continues
			g.signal(syscall.SIGINT)
			g.signal(syscall.SIGTERM)
			g.signal(syscall.SIGCONT)
			g.status(128+int(syscall.SIGINT), 128+int(syscall.SIGTERM))
		})
	})
	t.Run("booting", func(t *testing.T) {
		attempt(t, boot("-a", "loglevel=7"), func(g *guest) {
			g.expect("Linux version")
			g.signal(syscall.SIGTERM)
			g.status(0)
		})
	})
	t.Run("asleep", func(t *testing.T) {
		attempt(t, boot(), func(g *guest) {
			g.prompt()
			g.send("echo 7 > /proc/sys/kernel/printk; echo freeze > /sys/power/state\n")
			g.expect("PM: suspend entry (s2idle)")
			g.signal(syscall.SIGTERM)
			g.status(0)
		})
	})
	t.Run("timeout", func(t *testing.T) {
		// Without its modules the guest ignores the button.
		attempt(t, func() *guest {
			return onPipes("run", "-k", cpu.image(), "-m", "256M", "--stop-timeout", "1s", "-a", "quiet panic=0")
		}, func(g *guest) {
			g.expect("Kernel panic - not syncing") // then it hangs
			g.signal(syscall.SIGTERM)
			g.status(128 + int(syscall.SIGTERM))
		})
	})
}

// TestPiped is the README's one-liner: a shell that reads its commands from a pipe and
// ends with it.
func TestPiped(t *testing.T) {
	need(t, cloud)
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "-a", "quiet")...)
	}, func(g *guest) {
		g.send("uname -a\n") // long before the shell exists
		g.input.Close()      // ends the shell, and the guest with it
		g.status(0)
		if out := g.tail(1 << 20); !strings.Contains(out, "Debian") {
			fail(false, "uname did not run")
		}
	})
}

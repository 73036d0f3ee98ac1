// Package guest_test boots the initramfs of package guest in QEMU, without KVM: a failure
// here is not vmm's fault.
package guest_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"vmm/guest"
	"vmm/guest/kernel"
)

func TestMain(m *testing.M) {
	os.Unsetenv("VMM_CACHE") // the tests choose the cache
	os.Exit(m.Run())
}

// emulated skips a test that takes minutes, unless VMM_EMULATED is set.
func emulated(t *testing.T) {
	t.Helper()
	if os.Getenv("VMM_EMULATED") == "" {
		t.Skip("takes minutes: 'make emulated' runs it")
	}
}

// prompt waits for a shell that reads input: its prompt alone may come before the
// terminal is ready for more.
func (s *session) prompt() {
	s.t.Helper()
	s.expect("vmm-init: up ")
	s.expect("$ ")
}

func TestPrompt(t *testing.T) {
	for _, test := range []struct{ kernel, release string }{
		{"cloud", "-cloud-amd64 "},
		{"generic", "-amd64 "},
		{"cpu", "6.0.0 "},
	} {
		t.Run(test.kernel, func(t *testing.T) {
			s := boot(t, test.kernel, "quiet")
			s.prompt()
			s.typed("uname -a\n")
			s.expect(test.release)
			s.typed("ps\n")
			s.expect("ttyS0")
			s.typed("echo $((6*7))\n")
			s.expect("42\r\n")
			s.typed("poweroff\n")
			s.expect("Power down")
			if status := s.end(); status != 0 {
				t.Errorf("QEMU ended with %d", status)
			}
		})
	}
}

// TestConsole does what a person does at the prompt.
func TestConsole(t *testing.T) {
	s := boot(t, "cloud", "quiet TERM=xterm vmm.hostname=box")
	s.prompt()
	s.typed(`sh -c "echo rea'd'y; sleep 1000"` + "\n")
	s.expect("ready\r\n") // the echoed command looks different
	s.typed("\x03")
	s.expect("$ ")
	s.typed("echo $TERM on $(hostname)\n")
	s.expect("xterm on box")
	s.typed("echo )\necho again $((1+1))\n") // gosh ends at a syntax error; init starts another
	s.expect("again 2")
	s.typed("modprobe erofs; cat /proc/filesystems\n")
	s.expect("erofs")
	s.typed("\x04")
	s.expect("Power down")
	s.end()
}

func TestReboot(t *testing.T) {
	s := boot(t, "cloud", "quiet")
	s.prompt()
	s.typed("reboot\n")
	s.expect("Restarting system")
	s.end()
}

func TestPowerButton(t *testing.T) {
	s := boot(t, "cloud", "quiet")
	s.prompt()
	s.pressPowerButton()
	s.expect("vmm-init: power button")
	s.expect("Power down")
	s.end()
}

// TestExec runs one command, whose status n goes to the exit port. QEMU's exit device
// makes it 2*n+1.
func TestExec(t *testing.T) {
	for _, test := range []struct {
		command string
		says    string
		want    int
	}{
		{"echo out; exit 5", "out", 5},
		{"lsmod", "virtio_net", 0}, // the driver of a present device
		{"kill -9 $$", "up", 137},
		{"ping -c 1 10.0.2.2", "from 10.0.2.2", 0}, // QEMU's own gateway
	} {
		t.Run(test.command, func(t *testing.T) {
			s := boot(t, "cloud", `quiet vmm.exit=0x501 vmm.ip=10.0.2.15/24,10.0.2.2 vmm.exec="`+test.command+`"`,
				"-device", "isa-debug-exit,iobase=0x501,iosize=1", "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n")
			s.expect(test.says)
			if status := s.end(); status != (test.want*2+1)&0xff {
				t.Errorf("QEMU ended with %d, want %d: %s", status, (test.want*2+1)&0xff, s.said.String())
			}
		})
	}
}

// TestReproducible builds everything a second time, in a separate cache.
func TestReproducible(t *testing.T) {
	emulated(t)
	cache, err := kernel.Cache()
	if err != nil {
		t.Fatal(err)
	}
	first := digest(t)
	second := t.TempDir()
	if err := os.Symlink(filepath.Join(cache, "kernels"), filepath.Join(second, "kernels")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VMM_CACHE", second)
	t.Setenv("GOPROXY", "off") // all that the build needs is present
	if again := digest(t); again != first {
		t.Errorf("two builds differ: %x, %x", first, again)
	}
}

func digest(t *testing.T) [32]byte {
	t.Helper()
	path, err := guest.Build(t.Context(), "cloud")
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", len(image))
	return sha256.Sum256(image)
}

package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// distro returns the folder with the Debian that 'go run ./test/distro' makes.
func distro(t *testing.T) (dir string) {
	dir = filepath.Join(cache, "distro")
	if _, err := os.Stat(filepath.Join(dir, "VERSION")); err != nil {
		t.Skipf("%v; 'go run ./test/distro' makes it", err)
	}
	return dir
}

// TestDistro boots a full Debian from a disk, uses it, and presses the power button.
// Then it checks the disk: all writes are there, and the file system was unmounted
// cleanly.
func TestDistro(t *testing.T) {
	need(t)
	dir := distro(t)
	transports := []string{"pci"}
	if soak {
		transports = append(transports, "mmio") // takes a minute, or three on a busy host
	}
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "root.img")
			guests := t.TempDir()
			s := newServices(t, dir)
			attempt(t, func() *guest {
				// Each attempt has a fresh disk: the first may have died in mid-write.
				if err := copySparse(disk, filepath.Join(dir, "root.img")); err != nil {
					t.Fatal(err)
				}
				return onPipes("run", "--kernel", filepath.Join(dir, "vmlinuz"), "--initrd", filepath.Join(dir, "initrd.img"),
					"--cpus", "2", "--memory", "1G", "--transport", transport, "--disk", disk, "--append", "root=/dev/vda rw",
					"--net", "user,host-loopback", "--publish", fmt.Sprintf("%d:22", s.ssh),
					"--name", "debian", "--runtime-dir", filepath.Join(guests, "r"))
			}, func(g *guest) { useDistro(g, s, filepath.Join(guests, "r")) })
			checkDisk(t, disk)
		})
	}
}

// A step is a command and what it prints.
type step struct{ command, shows string }

const debianPrompt = ":~# "

// steps runs the steps at Debian's prompt.
func (g *guest) steps(list []step) {
	for _, step := range list {
		g.send(step.command + "\n")
		g.expect("\r\n") // ends the echo of the command
		g.patiently(func() { g.expect(step.shows) })
		g.expect(debianPrompt)
	}
}

// useDistro logs in, checks that all is well, uses the network, pauses the guest,
// writes a file, and ends the guest with its power button. guests is the runtime
// directory.
func useDistro(g *guest, s *services, guests string) {
	g.patiently(func() { g.expect("debian login: ") })
	g.send("root\n")
	g.patiently(func() { g.expect(debianPrompt) })
	first := []step{
		// A unit that has yet to start has not failed yet. A degraded system does not
		// end this wait with status 0 either.
		{"systemctl is-system-running --wait", "running\r\n"},
		{"systemctl --failed --no-pager", "0 loaded units listed"},
		{"lsblk --noheadings --output NAME,TYPE,MOUNTPOINT", "vda  disk /\r\n"},
		{"findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS /", "/dev/vda ext4   rw,"},
	}
	last := []step{
		{"echo written by $(hostname) > /root/proof && sync && echo sy''nced", "synced\r\n"},
	}
	g.steps(slices.Concat(first, s.steps()))
	pauseWatched(g, guests, "debian")
	g.steps(last)
	s.login()
	g.signal(syscall.SIGTERM)
	g.patiently(func() { g.status(0) })
}

// patiently runs wait with three times the patience: a distribution takes five times
// as long as our own guest.
func (g *guest) patiently(wait func()) {
	for range 2 {
		failed := caught(wait)
		if failed == nil {
			return
		}
		select {
		case <-g.exited:
			panic(*failed)
		default:
		}
		if !failed.stalled {
			panic(*failed)
		}
	}
	wait()
}

// caught returns the failure of f, or nil.
func caught(f func()) (failed *failure) {
	defer func() {
		if r := recover(); r != nil {
			text, ok := r.(failure)
			if !ok {
				panic(r)
			}
			failed = &text
		}
	}()
	f()
	return nil
}

// checkDisk checks a guest's root file system after the guest ended, as the next boot
// would find it.
func checkDisk(t *testing.T, disk string) {
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	// -f checks even if marked clean; without -n it would repair what we look for.
	if out, err := exec.Command("e2fsck", "-fn", disk).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v: %s", err, out)
	}
	header, err := exec.Command("dumpe2fs", "-h", disk).Output()
	if err != nil {
		t.Errorf("dumpe2fs: %v", err)
	}
	state := ""
	for line := range strings.Lines(string(header)) {
		if value, ok := strings.CutPrefix(line, "Filesystem state:"); ok {
			state = strings.TrimSpace(value)
		}
		if strings.HasPrefix(line, "Filesystem features:") && strings.Contains(line, "needs_recovery") {
			t.Error("the journal was not closed")
		}
	}
	if state != "clean" {
		t.Errorf("the file system is %q, want clean", state)
	}
	proof, err := exec.Command("debugfs", "-R", "cat /root/proof", disk).Output()
	if err != nil || string(proof) != "written by debian\n" {
		t.Errorf("/root/proof: %q, %v", proof, err)
	}
}

// copySparse copies a file, with zeros as holes: the lab has little memory, and its
// host's files do not report their holes.
func copySparse(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	block, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; {
		n, err := io.ReadFull(in, block)
		if n > 0 && !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := out.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return errors.Join(out.Truncate(at), out.Close())
		}
		if err != nil {
			return err
		}
	}
}

// TestCopySparse: the copy is identical to the last byte.
func TestCopySparse(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	data := make([]byte, 3<<20+5)
	data[2<<20-1], data[2<<20] = 1, 2
	if err := os.WriteFile(from, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copySparse(to, from); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

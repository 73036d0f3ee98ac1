package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folders makes two directories to share, and a secret beside them.
func folders(t *testing.T) (dir, readOnly string) {
	t.Helper()
	top := t.TempDir()
	dir, readOnly = filepath.Join(top, "dir"), filepath.Join(top, "read only")
	for _, d := range []string{dir, readOnly} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		store(t, filepath.Join(d, "file"), "of the host\n")
	}
	store(t, filepath.Join(top, "secret"), "nobody's business\n")
	for name, text := range map[string]string{"up": "../secret", "absolute": filepath.Join(top, "secret")} {
		if err := os.Symlink(text, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, readOnly
}

func store(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestShare: a guest's init mounts what -v names. Files go both ways, the guest sees
// host changes, links lead nowhere, and everything that a program can do works.
func TestShare(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags []string
	}{{"pci", nil}, {"mmio", []string{"--transport", "mmio", "-c", "2"}}} {
		t.Run(test.name, func(t *testing.T) {
			need(t, cloud)
			tool := tool(t)
			var dir, readOnly, inner string
			attempt(t, func() *guest {
				dir, readOnly = folders(t)
				inner, _ = folders(t)
				store(t, filepath.Join(inner, "file"), "inner\n")
				return onPipes(cloud.args(append(test.flags, "-m", "256M", "-a", "quiet", "--initrd", tool, "-v", inner+":/mnt/dir/inner", "-v", dir+":/mnt/dir", "-v", readOnly+":/read only:ro")...)...)
			}, func(g *guest) {
				g.prompt()
				g.do("grep virtiofs /proc/mounts", "share2 /read\\040only virtiofs ro")
				g.do("cat /mnt/dir/inner/file", "inner\r\n")
				g.do("cat /mnt/dir/file '/read only/file'", "of the host\r\nof the host\r\n")
				g.do("echo of the guest > /mnt/dir/new; echo done", "done\r\n")
				g.do("cat /mnt/dir/up", "no such file")
				g.do("cat /mnt/dir/absolute", "no such file")
				g.do("echo x > '/read only/file'", "read-only file system")
				store(t, filepath.Join(dir, "file"), "changed\n")
				store(t, filepath.Join(dir, "later"), "later\n")
				g.do("while ! grep -q changed /mnt/dir/file; do sleep 0.1; done; cat /mnt/dir/later", "later\r\n")
				g.do("/tool share /mnt/dir '/read only'", "SHARE-DONE")
				g.do("umount /mnt/dir/inner; umount /mnt/dir; mount -t virtiofs share1 /mnt/dir; cat /mnt/dir/later", "later\r\n")
				g.send("poweroff\n")
				g.status(0)
			})
			if b, err := os.ReadFile(filepath.Join(dir, "new")); err != nil || string(b) != "of the guest\n" {
				t.Errorf("the guest wrote %q, %v", b, err)
			}
			if b, err := os.ReadFile(filepath.Join(readOnly, "file")); err != nil || string(b) != "of the host\n" {
				t.Errorf("the read-only file is %q, %v", b, err)
			}
		})
	}
}

// TestShareRestart: a guest finds its shares again after a reset.
func TestShareRestart(t *testing.T) {
	need(t, cloud)
	dir, _ := folders(t)
	attempt(t, func() *guest {
		return onPipes(cloud.args("-m", "256M", "-a", "quiet", "-v", dir+":/mnt", "--on-reboot", "restart")...)
	}, func(g *guest) {
		g.prompt()
		g.do("echo first life > /mnt/life; echo done", "done\r\n")
		g.send("reboot\n")
		g.expect("vmm-init: up")
		g.prompt()
		g.do("cat /mnt/life", "first life")
		g.send("poweroff\n")
		g.status(0)
	})
}

// TestShareKernels: the generic kernel has the driver too. A guest without it says so
// and continues.
func TestShareKernels(t *testing.T) {
	for _, k := range []kernel{generic, cpu} {
		t.Run(string(k), func(t *testing.T) {
			need(t, k)
			dir, _ := folders(t)
			attempt(t, func() *guest {
				return onPipes(k.args("-m", "512M", "-a", "quiet", "-v", dir+":/mnt")...)
			}, func(g *guest) {
				g.prompt()
				if k == cpu {
					if out := g.tail(4000); !strings.Contains(out, "this kernel has no virtiofs") {
						fail(false, "init does not say that it cannot mount")
					}
				} else {
					g.do("cat /mnt/file", "of the host")
				}
				g.do(fmt.Sprintf("echo %s-goes-on", k), string(k)+"-goes-on\r\n")
				g.send("poweroff\n")
				g.status(0)
			})
		})
	}
}

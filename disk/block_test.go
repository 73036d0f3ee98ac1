package disk

import (
	"os/exec"
	"strings"
	"testing"
)

// loopDevice makes a block device of a file.
func loopDevice(t *testing.T, path string, args ...string) string {
	out, err := exec.CommandContext(t.Context(), "losetup", append(args, "--show", "-f", path)...).CombinedOutput()
	if err != nil {
		t.Skipf("no loop devices here: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "-d", dev).Run() })
	return dev
}

func TestBlockDevice(t *testing.T) {
	for _, sector := range []string{"512", "4096"} {
		for _, o := range []Options{{}, {Direct: true}} {
			path, want := newFile(t, t.TempDir(), 4<<20)
			dev := loopDevice(t, path, "-b", sector)
			m, err := Open(dev, o)
			if err != nil {
				t.Fatal(err)
			}
			logical, physical, minIO, optIO := m.Topology()
			t.Logf("%s %+v: %d bytes, blocks %d/%d, I/O %d/%d", sector, o, m.Size(), logical, physical, minIO, optIO)
			if m.Size() != 4<<20 || !m.device {
				t.Errorf("%d bytes", m.Size())
			}
			exercise(t, m, want, 30)
			for _, mayUnmap := range []bool{true, false} {
				for _, off := range []int64{8192, 16384 + 512} {
					if err := m.WriteZeroes(off, 4096, mayUnmap); err != nil {
						t.Error(err)
					}
					clear(want[off : off+4096])
				}
			}
			exercise(t, m, want, 30)
			if err := m.Discard(65536+512, 65536); err != nil && !unsupported(err) {
				t.Error(err)
			}
			if err := m.Discard(512, 512); err != nil && !unsupported(err) {
				t.Error(err)
			}
			for _, second := range []Options{{}, {ReadOnly: true}} {
				if n, err := Open(dev, second); err == nil {
					n.Close()
					t.Errorf("%+v: opened twice", second)
				} else if !strings.Contains(err.Error(), "another process uses it, or it is mounted") {
					t.Error(err)
				}
			}
			m.Close()
		}
	}
}

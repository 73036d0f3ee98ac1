package disk

import (
	"bytes"
	"os"
	"sync"
	"testing"
)

// inDirs runs f where direct I/O may work: the usual temporary directory is often a
// tmpfs.
func inDirs(t *testing.T, f func(t *testing.T, dir string)) {
	varTmp, err := os.MkdirTemp("/var/tmp", "vmm-disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(varTmp) })
	for _, dir := range []string{t.TempDir(), varTmp} {
		t.Run(dir[1:4], func(t *testing.T) { f(t, dir) })
	}
}

func openDirect(t *testing.T, path string) *Image {
	m, err := Open(path, Options{Direct: true})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestDirect(t *testing.T) {
	inDirs(t, func(t *testing.T, dir string) {
		path, want := newFile(t, dir, 4<<20)
		m := openDirect(t, path)
		t.Logf("alignment: offset %d, memory %d", m.direct.offAlign, m.direct.memAlign)
		exercise(t, m, want, 80)
		m.direct.offAlign = 4096 // as on a disk with 4 KiB sectors
		exercise(t, m, want, 80)
		if got, _ := os.ReadFile(path); !bytes.Equal(got, want) {
			t.Error("the file differs")
		}
	})
}

// TestDirectNeighbours: concurrent writes to sectors of one block do not undo each
// other.
func TestDirectNeighbours(t *testing.T) {
	inDirs(t, func(t *testing.T, dir string) {
		path, want := newFile(t, dir, 64<<10)
		m := openDirect(t, path)
		m.direct.offAlign = 4096
		const sectors = 8
		var wg sync.WaitGroup
		for i := range sectors {
			wg.Go(func() {
				b := make([]byte, SectorSize)
				for n := range 50 {
					for j := range b {
						b[j] = byte(n + i)
					}
					if err := m.WritevAt([][]byte{b}, int64(4096+i*SectorSize)); err != nil {
						t.Error(err)
					}
				}
				copy(want[4096+i*SectorSize:], b)
			})
		}
		wg.Wait()
		got := make([]byte, len(want))
		if err := m.ReadvAt([][]byte{got}, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("differs, %v", err)
		}
	})
}

func TestDirectSize(t *testing.T) {
	path, _ := newFile(t, t.TempDir(), 4096+512)
	m := openDirect(t, path)
	m.direct = nil
	if err := m.setUpDirect(); err != nil {
		t.Fatal(err)
	}
	if m.direct.offAlign <= 512 {
		m.size = 4096 + 100
		if m.setUpDirect() == nil {
			t.Error("a size that is not aligned passes")
		}
	}
}

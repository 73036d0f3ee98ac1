package hostdir

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestUnmade: a file is not made if the file system has room for it but not for its
// owner. A small tmpfs takes attributes from the room for inodes, so one of these
// sizes runs out between the two.
func TestUnmade(t *testing.T) {
	between := false
	for inodes := 10; inodes < 30; inodes++ {
		dir := t.TempDir()
		if err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("nr_inodes=%d", inodes)); err != nil {
			t.Skipf("needs to mount: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		d := open(t, dir, Options{})
		t.Cleanup(func() { d.Close() })
		if d.noXattr {
			t.Skip("needs a tmpfs with attributes (Linux 6.6)")
		}
		made := 0
		for s := fuse.OK; s.Ok(); {
			name := fmt.Sprint(made)
			in := fuse.MknodIn{InHeader: head(root), Mode: unix.S_IFREG | 0o600}
			in.Uid, in.Gid = 1000, 1000
			if s = d.Mknod(nil, &in, name, new(fuse.EntryOut)); s.Ok() {
				made++
				continue
			}
			if s != fuse.Status(unix.ENOSPC) {
				t.Fatal(s)
			}
			probe := filepath.Join(dir, "probe") // room for an inode?
			if f, err := os.Create(probe); err == nil {
				f.Close()
				between = true
			}
			os.Remove(probe)
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != made {
			t.Errorf("of %d inodes: %d files were made, %d are there, %v", inodes, made, len(list), err)
		}
	}
	if !between {
		t.Error("there was room for none of it, each time")
	}
}

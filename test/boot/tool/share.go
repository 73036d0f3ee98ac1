package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vmm/test/boot/pattern"
)

// share uses a shared folder in all ways that a program can, and a read-only one in
// ways that must fail.
func share(dir, readOnly string) error {
	for _, check := range []struct {
		name string
		do   func(dir string) error
	}{
		{"data", shareData}, {"mmap", shareMmap}, {"locks", shareLocks}, {"attributes", shareXattr}, {"names", shareNames},
		{"holes", shareHoles}, {"modes", shareModes}, {"a user", shareUser}, {"special files", shareSpecial}, {"directory", shareDirectory},
	} {
		at, began := filepath.Join(dir, "tool"), time.Now()
		if err := errors.Join(os.Mkdir(at, 0o755), check.do(at), os.RemoveAll(at)); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
		fmt.Println("share:", check.name, time.Since(began))
	}
	if err := shareReadOnly(readOnly); err != nil {
		return fmt.Errorf("read-only: %w", err)
	}
	fmt.Println("SHARE-DONE")
	return nil
}

// shareData writes and reads a little over 2 MiB, through the cache and past it.
func shareData(dir string) error {
	data := pattern.Bytes(2<<20 + 123)
	path := filepath.Join(dir, "data")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("in between"), 1<<20-5); err != nil {
		return err
	}
	copy(data[1<<20-5:], "in between")
	if err := errors.Join(f.Sync(), os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)); err != nil {
		return err
	}
	back, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(back, data) {
		return fmt.Errorf("%d bytes came back of %d, %v", len(back), len(data), err)
	}
	direct, err := os.OpenFile(path, unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer direct.Close()
	page, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if n, err := direct.ReadAt(page, 512<<10); n != len(page) || !bytes.Equal(page, data[512<<10:][:1<<20]) {
		return fmt.Errorf("O_DIRECT: %d bytes, %v", n, err)
	}
	return os.Truncate(path, 10)
}

// shareMmap writes through a shared mapping.
func shareMmap(dir string) error {
	path := filepath.Join(dir, "mapped")
	if err := os.WriteFile(path, make([]byte, 10_000), 0o644); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 10_000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m[4090:], "over a page's end")
	if err := errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m)); err != nil {
		return err
	}
	b := make([]byte, 17)
	if _, err := f.ReadAt(b, 4090); err != nil || string(b) != "over a page's end" {
		return fmt.Errorf("%q, %v", b, err)
	}
	return nil
}

// shareLocks takes locks through two descriptors.
func shareLocks(dir string) error {
	path := filepath.Join(dir, "locked")
	a, err := os.Create(path)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer b.Close()
	first := unix.Flock_t{Type: unix.F_WRLCK, Start: 10, Len: 10}
	second := unix.Flock_t{Type: unix.F_WRLCK, Start: 15, Len: 10}
	if err := unix.FcntlFlock(a.Fd(), unix.F_OFD_SETLK, &first); err != nil {
		return err
	}
	if err := unix.FcntlFlock(b.Fd(), unix.F_OFD_SETLK, &second); err != unix.EAGAIN {
		return fmt.Errorf("a lock over another's: %v", err)
	}
	if err := unix.Flock(int(a.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if err := unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		return fmt.Errorf("flock twice: %v", err)
	}
	return nil
}

func shareXattr(dir string) error {
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	if err := unix.Setxattr(path, "security.test", []byte("x"), 0); err != unix.EOPNOTSUPP {
		return fmt.Errorf("security.test: %v", err)
	}
	err := unix.Setxattr(path, "user.test", []byte("value"), 0)
	if err == unix.EOPNOTSUPP {
		return nil // the host's file system has no attributes
	}
	b := make([]byte, 100)
	n, err2 := unix.Getxattr(path, "user.test", b)
	m, err3 := unix.Listxattr(path, b[n:])
	if err := errors.Join(err, err2, err3); err != nil || string(b[:n+m]) != "valueuser.test\x00" {
		return fmt.Errorf("%q, %w", b[:n+m], err)
	}
	return unix.Removexattr(path, "user.test")
}

func shareNames(dir string) error {
	name := func(s string) string { return filepath.Join(dir, s) }
	err := errors.Join(os.WriteFile(name("a"), []byte("a"), 0o644), os.WriteFile(name("b"), []byte("b"), 0o644), os.Link(name("a"), name("c")),
		os.Symlink("/nowhere/at all", name("l")), os.Mkdir(name("d"), 0o755), os.Rename(name("b"), name("d/b")))
	if err != nil {
		return err
	}
	at := func(from, to string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, name(from), unix.AT_FDCWD, name(to), flags)
	}
	if err := at("a", "c", unix.RENAME_NOREPLACE); err != unix.EEXIST {
		return fmt.Errorf("NOREPLACE: %v", err)
	}
	if err := at("a", "d", unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("EXCHANGE: %w", err)
	}
	if text, err := os.Readlink(name("l")); err != nil || text != "/nowhere/at all" {
		return fmt.Errorf("%q, %v", text, err)
	}
	if b, err := os.ReadFile(name("a/b")); err != nil || string(b) != "b" {
		return fmt.Errorf("%q, %v", b, err)
	}
	// A file that is deleted while it is open.
	f, err := os.OpenFile(name("c"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(os.Remove(name("c")), os.Remove(name("d"))); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("gone"), 0); err != nil {
		return err
	}
	b := make([]byte, 4)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "gone" {
		return fmt.Errorf("a deleted file: %q, %v", b, err)
	}
	return nil
}

func shareHoles(dir string) error {
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("data"), 4<<20); err != nil {
		return err
	}
	at, err := f.Seek(0, unix.SEEK_DATA)
	if err != nil || at == 0 {
		return fmt.Errorf("data at %d, %v", at, err)
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4<<20, 4096); err != nil && err != unix.EOPNOTSUPP {
		return fmt.Errorf("fallocate: %w", err)
	}
	to, err := os.Create(filepath.Join(dir, "copy"))
	if err != nil {
		return err
	}
	defer to.Close()
	off := int64(4 << 20)
	n, err := unix.CopyFileRange(int(f.Fd()), &off, int(to.Fd()), nil, 4, 0)
	if err != nil || n != 4 {
		return fmt.Errorf("copy_file_range: %d, %w", n, err)
	}
	return nil
}

func shareModes(dir string) error {
	unix.Umask(0)
	defer unix.Umask(0o22)
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		return err
	}
	var st unix.Stat_t
	check := func(mode, uid, gid uint32) error {
		if err := unix.Stat(path, &st); err != nil || st.Mode&0o7777 != mode || st.Uid != uid || st.Gid != gid {
			return fmt.Errorf("mode %o of %d:%d, want %o of %d:%d, %v", st.Mode, st.Uid, st.Gid, mode, uid, gid, err)
		}
		return nil
	}
	err := errors.Join(check(0o666, 0, 0), unix.Chmod(path, 0o4750), check(0o4750, 0, 0), os.Chown(path, 0, 0), check(0o750, 0, 0),
		os.Chown(path, 1000, 100), check(0o750, 1000, 100), unix.Chmod(path, 0), check(0, 1000, 100), os.Chown(path, 0, 0), unix.Chmod(path, 0o644))
	if err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Blocks == 0 || fs.Namelen == 0 {
		return fmt.Errorf("statfs: %+v, %v", fs, err)
	}
	return unix.Access(path, unix.R_OK)
}

// shareUser acts as a user other than root in a world-writable directory: the user owns
// what it makes, and cannot change what it does not own.
func shareUser(dir string) error {
	name := func(s string) string { return filepath.Join(dir, s) }
	roots := errors.Join(unix.Chmod(dir, 0o777), os.WriteFile(name("roots"), nil, 0o644), os.WriteFile(name("program"), nil, 0o777), unix.Chmod(name("program"), 0o4777))
	if roots != nil {
		return roots
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		unix.RawSyscall(unix.SYS_SETFSGID, 1000, 0, 0)
		unix.RawSyscall(unix.SYS_SETFSUID, 1000, 0, 0)
		done <- asUser(name)
	}()
	err := <-done
	var st unix.Stat_t
	if unix.Stat(name("program"), &st) != nil || st.Mode&0o7777 != 0o777 {
		err = errors.Join(err, fmt.Errorf("a program that was written to has mode %o", st.Mode))
	}
	return err
}

func asUser(name func(string) string) error {
	f, err := os.OpenFile(name("his"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if err != nil {
		return err
	}
	defer f.Close()
	_, write := f.Write([]byte("his"))
	p, open := os.OpenFile(name("program"), os.O_WRONLY, 0)
	if open != nil {
		return open
	}
	defer p.Close()
	_, change := p.Write([]byte("changed"))
	err = errors.Join(write, change, os.Mkdir(name("of his"), 0o755), os.WriteFile(name("of his/file"), nil, 0o600), os.Symlink("x", name("of his/link")),
		unix.Mkfifo(name("of his/pipe"), 0o600), os.Chmod(name("his"), 0o600), os.WriteFile(name("his"), []byte("more"), 0), os.Rename(name("his"), name("of his/his")),
		os.Link(name("of his/his"), name("again")), os.Chtimes(name("again"), time.Unix(1, 0), time.Unix(1, 0)))
	var st unix.Stat_t
	for _, made := range []string{"of his", "of his/file", "of his/link", "of his/pipe", "of his/his", "again"} {
		if e := unix.Lstat(name(made), &st); e != nil || st.Uid != 1000 || st.Gid != 1000 {
			err = errors.Join(err, fmt.Errorf("%s is %d:%d's, %v", made, st.Uid, st.Gid, e))
		}
	}
	for what, got := range map[string]error{
		"chmod of root's": os.Chmod(name("roots"), 0o666), "chown": os.Chown(name("again"), 0, 0), "write to root's": os.WriteFile(name("roots"), nil, 0),
	} {
		if !errors.Is(got, unix.EPERM) && !errors.Is(got, unix.EACCES) {
			err = errors.Join(err, fmt.Errorf("%s: %v", what, got))
		}
	}
	return err
}

func shareSpecial(dir string) error {
	name := func(s string) string { return filepath.Join(dir, s) }
	if err := unix.Mknod(name("pipe"), unix.S_IFIFO|0o600, 0); err != nil {
		return err
	}
	if err := unix.Mknod(name("null"), unix.S_IFCHR|0o600, 0x0103); err != unix.EPERM {
		return fmt.Errorf("a device: %v", err)
	}
	f, err := os.OpenFile(name("pipe"), os.O_RDWR, 0) // the guest's own pipe
	if err != nil {
		return err
	}
	return f.Close()
}

// shareDirectory reads a directory of several pages, twice.
func shareDirectory(dir string) error {
	const n = 100
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("an entry, number ", i)), nil, 0o644); err != nil {
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for range 2 {
		names, err := d.Readdirnames(-1)
		slices.Sort(names)
		if len(slices.Compact(names)) != n || err != nil {
			return fmt.Errorf("%d names of %d, %v", len(names), n, err)
		}
		if _, err := d.Seek(0, 0); err != nil {
			return err
		}
	}
	return nil
}

// shareReadOnly checks that nothing can be changed. The guest mounts it for writing, to
// test that the host refuses.
func shareReadOnly(dir string) error {
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	name := func(s string) string { return filepath.Join(dir, s) }
	_, open := os.OpenFile(name("file"), os.O_WRONLY, 0)
	for what, err := range map[string]error{
		"create": os.WriteFile(name("new"), nil, 0o644), "open": open, "mkdir": os.Mkdir(name("new"), 0o755), "remove": os.Remove(name("file")),
		"rename": os.Rename(name("file"), name("new")), "link": os.Link(name("file"), name("new")), "symlink": os.Symlink("x", name("new")),
		"truncate": os.Truncate(name("file"), 0), "chmod": os.Chmod(name("file"), 0o777),
	} {
		if !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("%s: %v", what, err)
		}
	}
	return nil
}

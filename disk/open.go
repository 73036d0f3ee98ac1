package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens the disk at path. It does not wait: a disk in use is an error.
func Open(path string, o Options) (*Image, error) {
	m := &Image{path: path, opts: o}
	if err := m.open(); err != nil {
		return nil, fmt.Errorf("disk %s: %w", path, err)
	}
	if err := m.setUp(); err != nil {
		m.f.Close()
		return nil, fmt.Errorf("disk %s: %w", path, err)
	}
	return m, nil
}

// open checks the type first: opening a FIFO would wait for its other end, and opening
// a tape would move it.
func (m *Image) open() error {
	info, err := m.opts.Held.Stat(m.path)
	if err != nil {
		return explain(err, m.path)
	}
	if err := m.checkKind(info.Mode()); err != nil {
		return err
	}
	flags := os.O_RDONLY
	if !m.opts.ReadOnly {
		flags = os.O_RDWR
		if m.device {
			flags |= os.O_EXCL // EBUSY if it is mounted or used by the kernel
		}
	}
	if m.opts.Direct {
		flags |= unix.O_DIRECT
	}
	if m.f, err = m.opts.Held.Open(m.path, flags); err != nil {
		return explain(err, m.path)
	}
	m.fd = int(m.f.Fd())
	return nil
}

func (m *Image) checkKind(mode fs.FileMode) error {
	what := ""
	switch {
	case mode.IsRegular():
		m.device = false
		return nil
	case mode&fs.ModeCharDevice != 0:
		what = "a character device"
	case mode&fs.ModeDevice != 0:
		m.device = true
		return nil
	case mode.IsDir():
		what = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		what = "a FIFO"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	default:
		what = "not a file"
	}
	return fmt.Errorf("is %s: a disk is a raw image in a regular file, or a block device", what)
}

// explain adds advice to common errors.
func explain(err error, path string) error {
	var advice string
	switch {
	case errors.Is(err, fs.ErrNotExist):
		advice = "create one of 10 GiB with: truncate -s 10G " + path
	case errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
		advice = "open it read-only, or change its permissions"
	case errors.Is(err, unix.EBUSY):
		return errInUse
	case errors.Is(err, unix.EINVAL):
		advice = "its file system has no direct I/O: use the disk without"
	}
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		err = pe.Err // the caller adds the path
	}
	if advice == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, advice)
}

// setUp locks the open file and learns its properties.
func (m *Image) setUp() error {
	info, err := m.f.Stat() // once more: the path may name another file by now
	if err != nil {
		return err
	}
	if err := m.checkKind(info.Mode()); err != nil {
		return err
	}
	if err := lock(m.fd, m.opts.ReadOnly); err != nil {
		return err
	}
	if m.size, err = m.f.Seek(0, io.SeekEnd); err != nil { // works for a block device, too
		return err
	}
	switch {
	case m.size == 0:
		return fmt.Errorf("is empty: make it 10 GiB with: truncate -s 10G %s", m.path)
	case m.size%SectorSize != 0:
		return sizeError(m.size, SectorSize, m.path)
	}
	if m.device {
		m.topology = deviceTopology(m.fd)
	} else {
		m.topology = fileTopology(m.fd)
		m.memory = inMemory(m.fd)
	}
	if m.opts.Direct {
		return m.setUpDirect()
	}
	return nil
}

// inMemory reports whether a file has no medium except memory (and swap): then no
// transfer waits, even if its file system does not know RWF_NOWAIT, as tmpfs up to
// Linux 6.5.
func inMemory(fd int) bool {
	var s unix.Statfs_t
	err := again(func() error { return unix.Fstatfs(fd, &s) })
	return err == nil && (s.Type == unix.TMPFS_MAGIC || s.Type == unix.RAMFS_MAGIC)
}

func sizeError(size, unit int64, path string) error {
	return fmt.Errorf("size %d is not a multiple of %d: round it up with: truncate -s %%%d %s", size, unit, unit, path)
}

// fileTopology returns the topology of a regular file: blocks are 4 KiB on nearly all
// file systems, but a guest must see the 512-byte sectors that its partition table was
// made with.
func fileTopology(fd int) topology {
	t := topology{logical: SectorSize, physical: 4096, minIO: 4096}
	var s unix.Stat_t
	if again(func() error { return unix.Fstat(fd, &s) }) == nil && s.Blksize > 4096 && s.Blksize <= 1<<24 {
		t.optIO = int(s.Blksize)
	}
	return t
}

func deviceTopology(fd int) topology {
	ask := func(request uint, otherwise int) int {
		if v, err := unix.IoctlGetInt(fd, request); err == nil && v > 0 && v <= 1<<30 {
			return v
		}
		return otherwise
	}
	t := topology{logical: ask(unix.BLKSSZGET, SectorSize)}
	t.physical = ask(unix.BLKPBSZGET, t.logical)
	t.minIO = ask(unix.BLKIOMIN, t.physical)
	t.optIO = ask(unix.BLKIOOPT, 0)
	return t
}

// Package disk is a host disk: a raw image in a regular file, or a block device. It is
// independent of its users.
//
// The format is never guessed from the content: a guest writes that, and could make its
// raw disk look like an image that names other files.
package disk

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmm/hostfile"
)

// SectorSize divides the size of a disk.
const SectorSize = 512

// Options say how to open a disk.
type Options struct {
	ReadOnly bool // others may read it at the same time; else it is exclusive
	Direct   bool // bypass the host's page cache (O_DIRECT)
	// Held has the disk under its path; nil resolves the path.
	Held *hostfile.Set
}

// Image is an open disk. Its methods may be called from any goroutine, several
// at once, until Close. Errors wrap the errno of what went wrong.
type Image struct {
	path   string
	f      *os.File
	fd     int
	size   int64
	opts   Options
	device bool // a block device
	topology
	direct *direct // nil: through the page cache
	memory bool    // a file in a file system that is all page cache

	// What the file system turned out not to support: tried once.
	noTryRead, noTryWrite         atomic.Bool // RWF_NOWAIT
	noPunch, noZeroRange, noTrims atomic.Bool

	flush sync.Mutex
	lost  error // guarded by flush: why writes that were acknowledged may be lost
}

// topology is the sizes for best use of the disk, in bytes.
type topology struct{ logical, physical, minIO, optIO int }

// Close frees the disk and its lock. No other method may run.
func (m *Image) Close() error { return m.f.Close() }

// Path returns the path that was opened.
func (m *Image) Path() string { return m.path }

// Size returns the number of bytes, a multiple of SectorSize.
func (m *Image) Size() int64 { return m.size }

// ReadOnly reports whether the disk was opened for reading only.
func (m *Image) ReadOnly() bool { return m.opts.ReadOnly }

// Topology returns, in bytes, the logical block (the unit that a user may address), the
// physical block (the unit that it should), and the smallest and the optimal transfer;
// 0 means unknown.
func (m *Image) Topology() (logical, physical, minIO, optIO int) {
	return m.logical, m.physical, m.minIO, m.optIO
}

// Flush makes all writes that have returned survive a crash of the host.
//
// After a failure the page cache no longer holds what could not be written, and a
// second fdatasync would succeed, so Flush then fails forever.
func (m *Image) Flush() error {
	if m.opts.ReadOnly {
		return nil
	}
	// One at a time: if two overlap, the kernel reports an error to only one.
	m.flush.Lock()
	defer m.flush.Unlock()
	err := m.lost
	if err == nil {
		err = again(func() error { return unix.Fdatasync(m.fd) })
	}
	if err == nil {
		return nil
	}
	if m.direct == nil {
		m.lost = err
	}
	return m.failed("flush", err)
}

// failed adds the operation and the disk to an error.
func (m *Image) failed(what string, err error) error {
	return fmt.Errorf("disk %s: %s: %w", m.path, what, err)
}

// again repeats f until no signal interrupts it.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// unsupported reports whether the host does not support the operation on this file.
func unsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

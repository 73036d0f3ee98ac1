// Package kvm is Linux's KVM interface and nothing else. Names, numbers and layouts
// are those of <linux/kvm.h>; their meaning is in Documentation/virt/kvm/api.rst. It
// holds no policy; callers decide what a machine looks like.
package kvm

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Device is where the kernel offers KVM.
const Device = "/dev/kvm"

// System is an open /dev/kvm.
type System struct {
	fd      int
	runSize int // of a kvm_run page and what follows it, in bytes
}

// Open opens the KVM device at path, which is Device except in tests. Its errors are
// those of open(2), so errors.Is distinguishes a missing device (fs.ErrNotExist) from
// a forbidden one (fs.ErrPermission).
func Open(path string) (*System, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	s := &System{fd: fd}
	v, errno := ioctl(fd, reqGetAPIVersion, 0)
	if errno == 0 && v != Version {
		err = &VersionError{v}
	} else if errno != 0 {
		err = fail("KVM_GET_API_VERSION", errno)
	} else if s.runSize, errno = ioctl(fd, reqGetVCPUMmapSize, 0); errno != 0 {
		err = fail("KVM_GET_VCPU_MMAP_SIZE", errno)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// VersionError says that the kernel has a different KVM API version from this
// package's.
type VersionError struct{ Version int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("KVM API version %d, not %d", e.Version, Version)
}

// Close closes the device. Virtual machines created from it stay open.
func (s *System) Close() error { return unix.Close(s.fd) }

// Check returns KVM's value for an extension, 0 if it is absent.
func (s *System) Check(c Cap) int {
	n, errno := ioctl(s.fd, reqCheckExtension, uintptr(c))
	if errno != 0 {
		return 0
	}
	return n
}

// SupportedCPUID returns the CPUID leaves that KVM can give a guest here
// (KVM_GET_SUPPORTED_CPUID).
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	c := &cpuid2{N: maxCPUIDEntries}
	if errno := ioctlPtr(s.fd, reqGetSupportedCPUID, c); errno != 0 {
		return nil, fail("KVM_GET_SUPPORTED_CPUID", errno)
	}
	return c.Entries[:min(c.N, maxCPUIDEntries)], nil
}

// CreateVM returns a new, empty virtual machine.
func (s *System) CreateVM() (*VM, error) {
	for {
		fd, errno := ioctl(s.fd, reqCreateVM, 0)
		switch errno {
		case 0:
			unix.CloseOnExec(fd)
			return &VM{fd: fd, runSize: s.runSize}, nil
		case syscall.EINTR: // a signal from Go's runtime while KVM set up its notifiers
		default:
			return nil, fail("KVM_CREATE_VM", errno)
		}
	}
}

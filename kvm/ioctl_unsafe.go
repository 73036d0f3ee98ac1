package kvm

import (
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl makes the system call. It uses Syscall, not RawSyscall: a vCPU stays in it as
// long as its guest runs, and Go's scheduler and garbage collector must continue
// meanwhile.
func ioctl(fd int, req, arg uintptr) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), req, arg)
	return int(n), errno
}

// ioctlPtr passes a struct that the kernel reads, writes or both.
func ioctlPtr[T any](fd int, req uintptr, arg *T) syscall.Errno {
	_, errno := ioctlPtrN(fd, req, arg)
	return errno
}

// ioctlPtrN is ioctlPtr for requests that return a number.
func ioctlPtrN[T any](fd int, req uintptr, arg *T) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(arg)))
	return int(n), errno
}

// deviceAttr passes a struct kvm_device_attr that points to value, which the
// kernel reads or writes.
func deviceAttr(fd int, req uintptr, group uint32, attr uint64, value *uint64) syscall.Errno {
	var pin runtime.Pinner // the compiler does not see the pointer in the struct
	pin.Pin(value)
	defer pin.Unpin()
	return ioctlPtr(fd, req, &deviceAttribute{Group: group, Attr: attr, Addr: uint64(uintptr(unsafe.Pointer(value)))})
}

// address returns the host address of b, which must not be on the Go heap.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// flag is the immediate_exit byte of a kvm_run page. Go has no atomic bytes, so it
// uses the aligned word around it. We leave the other bytes of the word zero
// (request_interrupt_window: an in-kernel irqchip needs none).
type flag struct{ word *uint32 }

func immediateExit(run []byte) flag {
	return flag{(*uint32)(unsafe.Pointer(unsafe.SliceData(run)))}
}

func (f flag) set()        { atomic.StoreUint32(f.word, 1<<(8*runImmediateExit)) }
func (f flag) clear()      { atomic.StoreUint32(f.word, 0) }
func (f flag) isSet() bool { return atomic.LoadUint32(f.word) != 0 }

func mmapRun(fd, size int) ([]byte, error) {
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return b, os.NewSyscallError("mmap", err)
}

// fail turns the errno of an ioctl into an error that names the ioctl.
func fail(what string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return os.NewSyscallError(what, errno)
}

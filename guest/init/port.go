package main

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// out writes b to an I/O port.
func out(port uint16, b byte) error {
	return withPorts(port, 1, func() { outb(port, b) })
}

// withPorts calls f, which uses n I/O ports. Debian's cloud kernel has no /dev/port, so
// withPorts requests permission (ioperm(2), which applies to one thread) and f uses the
// instructions.
func withPorts(port uint16, n uintptr, f func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := unix.Syscall(unix.SYS_IOPERM, uintptr(port), n, 1); errno != 0 {
		return os.NewSyscallError("ioperm", errno)
	}
	f()
	return nil
}

// outb is OUT DX, AL.
//
//go:noescape
func outb(port uint16, b byte)

// inb is IN AL, DX.
//
//go:noescape
func inb(port uint16) byte

package main

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// out writes b to an I/O port. Debian's cloud kernel has no /dev/port, so it
// takes the permission (ioperm(2), which holds for one thread) and the
// instruction.
func out(port uint16, b byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := unix.Syscall(unix.SYS_IOPERM, uintptr(port), 1, 1); errno != 0 {
		return os.NewSyscallError("ioperm", errno)
	}
	outb(port, b)
	return nil
}

// outb is OUT DX, AL.
//
//go:noescape
func outb(port uint16, b byte)

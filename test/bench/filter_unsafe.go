package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const kvmRun = 0xae80 // KVM_RUN

// filterRun puts a filter on the calling thread and its children, in this program and
// after exec. It returns the file descriptor that becomes readable when a thread calls
// ioctl(KVM_RUN) (seccomp_unotify(2)).
func filterRun() (int, error) {
	const nr, arch, request = 0, 4, 16 + 8 // in struct seccomp_data; the low half of args[1]
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	// skip jumps over n instructions unless the loaded value is k.
	skip := func(k uint32, n uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: n}
	}
	verdict := func(v uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v}
	}
	program := []unix.SockFilter{
		load(arch), skip(unix.AUDIT_ARCH_X86_64, 5),
		load(nr), skip(unix.SYS_IOCTL, 3),
		load(request), skip(kvmRun, 1),
		verdict(unix.SECCOMP_RET_USER_NOTIF),
		verdict(unix.SECCOMP_RET_ALLOW),
	}
	// Without it, only root may install a filter. It disables set-user-ID at exec.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}

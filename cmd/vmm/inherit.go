package main

import (
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A process is named after its first thread, and each vCPU names its thread. So the first
// thread is main's own; otherwise ps could show a guest as "vcpu 0".
func init() { runtime.LockOSThread() }

// inherit decides, before anything else, what happens to what the process inherits from
// its parent.
//
//   - Descriptors other than 0, 1 and 2 are not passed on: a guest in the background
//     would hold a script's lock, or a pipe whose end another process waits for. (Go's
//     runtime has opened /dev/null for each of 0, 1 and 2 that was closed, so nothing
//     else gets their numbers.)
//   - A reader of standard output or error that leaves does not end the process: the
//     write fails instead of raising SIGPIPE. The same goes for the file size limit and
//     SIGXFSZ.
//   - A shell that makes background commands ignore SIGINT makes them ignore SIGQUIT,
//     too; but Go's runtime catches SIGQUIT regardless.
func inherit() {
	adoptDetached()
	closeOnExec(3)
	signal.Ignore(syscall.SIGPIPE, syscall.SIGXFSZ)
	if signal.Ignored(syscall.SIGINT) {
		signal.Ignore(syscall.SIGQUIT)
	}
}

// closeOnExec makes every descriptor from first on close on exec.
func closeOnExec(first int) {
	if unix.CloseRange(uint(first), ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC) != nil { // before Linux 5.11, or where a filter refuses it
		eachDescriptor(first, unix.CloseOnExec)
	}
}

// eachDescriptor calls f with each open descriptor from first on. f must tolerate one
// that is no longer open: that of the list itself.
func eachDescriptor(first int, f func(fd int)) {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, n := range names {
		if fd, err := strconv.Atoi(n.Name()); err == nil && fd >= first {
			f(fd)
		}
	}
}

// pipe returns the inode of the pipe that a descriptor belongs to, or 0.
func pipe(fd int) uint64 {
	var s unix.Stat_t
	if unix.Fstat(fd, &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFIFO {
		return 0
	}
	return s.Ino
}

// unignored returns those of signals that were not ignored when the process started. The
// others are meant to stay ignored: SIGHUP by nohup, SIGINT by a shell without job
// control for background commands. For other signals Go's runtime does not keep this, so
// SIGTERM is always caught.
func unignored(signals ...os.Signal) (heard []os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			heard = append(heard, s)
		}
	}
	return heard
}

// standInBackground keeps the process running when a shell puts it in the background:
// typed keys and tostop do not stop it. A keyboard is not read there (package console).
func standInBackground() { signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU) }

package main

import (
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The process has the name of its first thread, and each vCPU gives its thread one:
// so the first is main's own, or a guest in ps could be called "vcpu 0".
func init() { runtime.LockOSThread() }

// inherit settles, before anything else, what becomes of that which the process
// was given by who started it.
//
//   - Descriptors beside 0, 1 and 2 are passed on to nobody: a guest in the
//     background would hold a script's lock, or the pipe whose end somebody waits
//     for. (Go's runtime has opened /dev/null for each of 0, 1 and 2 that was
//     closed, so nothing else gets their numbers.)
//   - A reader of standard output or error that leaves ends nothing: the write
//     fails, and without this the process would be ended by SIGPIPE. Nor does the
//     limit of a file's size, by SIGXFSZ.
//   - A shell that has SIGINT ignored by what it starts in the background has
//     SIGQUIT ignored, too; but that one Go's runtime takes regardless.
func inherit() {
	adoptDetached()
	closeOnExec(3)
	signal.Ignore(syscall.SIGPIPE, syscall.SIGXFSZ)
	if signal.Ignored(syscall.SIGINT) {
		signal.Ignore(syscall.SIGQUIT)
	}
}

// closeOnExec has no descriptor from first on survive an exec.
func closeOnExec(first int) {
	if unix.CloseRange(uint(first), ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC) != nil { // before Linux 5.11, or where a filter refuses it
		eachDescriptor(first, unix.CloseOnExec)
	}
}

// eachDescriptor calls f with each open descriptor from first on. One that is not
// open any more (that of the list itself) f must not mind.
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

// pipe returns the inode of the pipe that a descriptor is an end of, or 0.
func pipe(fd int) uint64 {
	var s unix.Stat_t
	if unix.Fstat(fd, &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFIFO {
		return 0
	}
	return s.Ino
}

// unignored returns those of signals that were not ignored when the process
// started. One that was is meant to stay so: SIGHUP by nohup, SIGINT by a shell
// without job control for what runs in the background. Of other signals Go's
// runtime forgets it, so SIGTERM is always heard.
func unignored(signals ...os.Signal) (heard []os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			heard = append(heard, s)
		}
	}
	return heard
}

// standInBackground is for what a shell may have in its background: keys and
// tostop do not stop it. A keyboard is not read there (package console).
func standInBackground() { signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU) }

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// newStart measures the time from exec to the first KVM_RUN of each rival, from the
// outside and without its help: see trap.
func newStart(f files) *report {
	r := &report{Bench: "start", Unit: "ms", Digits: 2, against: []string{"vmm", "qemu-microvm*", "gokvm"}, Notes: []string{
		"From exec to the first ioctl(KVM_RUN), which a seccomp filter reports; 1 vCPU, 256 MiB, kernel and initrd of the boot benchmark.",
		"What firmware still has to do inside of a QEMU guest is not in it.",
	}}
	for _, v := range rivals() {
		e := &entry{Name: v.name, Note: v.note}
		e.measure = func(ctx context.Context) (run, error) {
			argv, err := v.argv(f, bootMemory)
			if err != nil {
				return run{}, err
			}
			e.Argv = argv
			took, err := firstRun(ctx, f.self, argv)
			return run{Value: float64(took.Nanoseconds()) / 1e6}, err
		}
		r.Entries = append(r.Entries, e)
	}
	return r
}

// firstRun starts argv through trap and returns the time from exec to its first
// KVM_RUN.
func firstRun(ctx context.Context, self string, argv []string) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "trap")
	p, err := launch(append([]string{self, "trap"}, argv...), theirs)
	theirs.Close()
	if err != nil {
		return 0, err
	}
	defer p.kill()
	listener, began, err := receiveTrap(ctx, pair[0])
	if err != nil {
		return 0, fmt.Errorf("trap: %w: %s", err, p.rest())
	}
	defer unix.Close(listener)
	if err := readable(ctx, listener); err != nil {
		return 0, fmt.Errorf("%s never ran its guest: %w: %s", argv[0], err, p.rest())
	}
	return time.Duration(monotonic() - began), nil
}

// receiveTrap receives the filter's file descriptor and the time of exec.
func receiveTrap(ctx context.Context, socket int) (listener int, began int64, err error) {
	if err := readable(ctx, socket); err != nil {
		return 0, 0, err
	}
	text, control := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	n, nc, _, _, err := unix.Recvmsg(socket, text, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, 0, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:nc])
	if err != nil || len(messages) != 1 {
		return 0, 0, errors.New("it ended")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return 0, 0, errors.New("no file descriptor came")
	}
	_, err = fmt.Sscan(string(text[:n]), &began)
	return fds[0], began, err
}

// readable waits until fd is readable, or has ended.
func readable(ctx context.Context, fd int) error {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 100)
		switch {
		case err != nil && err != unix.EINTR:
			return err
		case n == 1 && p[0].Revents&unix.POLLIN != 0:
			return nil
		case n == 1:
			return errors.New("it ended")
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// trap is the hidden command
//
//	bench trap COMMAND ...
//
// which becomes the command, under a system call filter. The filter stops the first
// thread that calls ioctl(KVM_RUN), and makes its listener, which trap has sent to
// socket 3, readable. All other system calls continue at once, so the command does not
// notice.
func trap(argv []string) error {
	if len(argv) == 0 || !strings.HasPrefix(argv[0], "/") {
		return errors.New("trap: want the path of a command")
	}
	runtime.LockOSThread() // the filter belongs to this thread, and stays through exec
	listener, err := filterRun()
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	const socket = 3
	unix.CloseOnExec(socket)
	began := fmt.Appendln(nil, monotonic())
	if err := unix.Sendmsg(socket, began, unix.UnixRights(listener), nil, 0); err != nil {
		return err
	}
	return unix.Exec(argv[0], argv, os.Environ())
}

// monotonic returns the time of a clock that all processes share, in nanoseconds.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every Linux has this clock
	}
	return t.Nano()
}

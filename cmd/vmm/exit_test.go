package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"vmm/boot"
	"vmm/machine"
	"vmm/task"
)

func TestErrorStatus(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{&machine.HostError{Why: "no KVM", Do: "load it"}, exitHost},
		{&machine.HostError{Why: "KVM", Do: "update", Err: syscall.EBUSY}, exitHost},
		{errors.New("whatever"), exitHost},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EMFILE}, exitHost},
		{&machine.ConfigError{Field: "CPUs", Why: "0"}, exitUsage},
		{&boot.InputError{What: "kernel", Path: "k", Err: errors.New("empty")}, exitInput},
		{fmt.Errorf("guest: %w", &boot.InputError{What: "initrd"}), exitInput},
		{&machine.CPUError{}, exitCPU},
		{&task.PanicError{Value: "index out of range"}, exitBug},
	} {
		if got := errorStatus(test.err); got.code != test.want || !errors.Is(got, test.err) {
			t.Errorf("%v: status %d, want %d", test.err, got.code, test.want)
		}
	}
}

func TestEndStatus(t *testing.T) {
	for _, test := range []struct {
		end  machine.End
		sig  syscall.Signal
		want int
	}{
		{machine.End{Reason: machine.PowerOff}, 0, 0},
		{machine.End{Reason: machine.PowerOff}, syscall.SIGTERM, 0}, // as the signal asked
		{machine.End{Reason: machine.Reset}, 0, 10},
		{machine.End{Reason: machine.TripleFault}, 0, 11},
		{machine.End{Reason: machine.Panic}, 0, 12},
		{machine.End{Reason: machine.DebugExit, Code: 0}, 0, 64},
		{machine.End{Reason: machine.DebugExit, Code: 62}, 0, 126},
		{machine.End{Reason: machine.DebugExit, Code: 63}, 0, 127},
		{machine.End{Reason: machine.DebugExit, Code: 1 << 31}, 0, 127},
		{machine.End{Reason: machine.Stopped}, syscall.SIGHUP, 129},
		{machine.End{Reason: machine.Stopped}, syscall.SIGINT, 130},
		{machine.End{Reason: machine.Stopped}, syscall.SIGTERM, 143},
	} {
		if got := endStatus(test.end, test.sig); got != test.want {
			t.Errorf("%v, %v: status %d, want %d", test.end, test.sig, got, test.want)
		}
	}
}

func TestFlagName(t *testing.T) {
	flags := newTest(t).run(t).Flags()
	for field, want := range map[string]string{"Kernel": "--kernel: x", "CPUs": "--cpus: x", "Memory": "--memory: x"} {
		got := flagName(&machine.ConfigError{Field: field, Why: "x"}).Error()
		if name, _, _ := strings.Cut(got[2:], ":"); got != want || flags.Lookup(name) == nil {
			t.Errorf("%s: %q", field, got)
		}
	}
	if err := errors.New("another"); flagName(err) != err {
		t.Error("another error is changed")
	}
}

func TestSerialStatus(t *testing.T) {
	refused := &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}
	for spec, want := range map[string]int{
		"": exitUsage, "usb": exitUsage, "usb:1": exitUsage, "file": exitUsage, "file:": exitUsage, "unix:": exitUsage, "none:x": exitUsage,
		"stdio:x": exitUsage, "file:x": exitHost, "unix:x": exitHost, "stdio": exitHost, "pty": exitHost,
	} {
		var got *statusError
		if err := serialStatus(spec, refused); !errors.As(err, &got) || got.code != want {
			t.Errorf("%q: %v", spec, got)
		}
	}
}

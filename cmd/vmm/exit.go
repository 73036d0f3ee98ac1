package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"vmm/boot"
	"vmm/machine"
	"vmm/service"
	"vmm/task"
)

// Exit statuses; README and 'vmm help exit-status' list them.
const (
	exitPowerOff    = 0  // the guest turned itself off; or the command did what was asked
	exitHost        = 1  // this host cannot do it
	exitUsage       = 2  // the command line is wrong
	exitInput       = 3  // a kernel, an initrd, a disk, a share or a guest's command line cannot be used
	exitNotFound    = 5  // no guest has that name
	exitReset       = 10 // the guest reset itself
	exitTripleFault = 11 // the guest faulted without a handler (reboot=t does so on purpose)
	exitPanic       = 12 // the guest's kernel reported a panic
	exitCPU         = 13 // KVM cannot continue the guest
	exitBug         = 4  // vmm itself went wrong
	exitDebug       = 64 // plus what the guest wrote to the debug-exit port, up to 63
	exitSignal      = 128
)

// statusError carries an exit status through cobra; err may be nil.
type statusError struct {
	code int
	err  error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// errorStatus says whose fault an error is.
func errorStatus(err error) *statusError {
	var (
		config   *machine.ConfigError
		inside   *machine.CollisionError
		input    *boot.InputError
		disk     *machine.DiskError
		share    *machine.ShareError
		cpu      *machine.CPUError
		internal *task.PanicError
	)
	code := exitHost
	switch {
	case errors.As(err, &config), errors.As(err, &inside):
		code = exitUsage
	case errors.As(err, &input), errors.As(err, &disk), errors.As(err, &share):
		code = exitInput
	case errors.As(err, &cpu):
		code = exitCPU
	case errors.As(err, &internal):
		code = exitBug
	}
	return &statusError{code, err}
}

// endStatus returns the exit status for the way a guest ended; sig is what stopped it.
func endStatus(e machine.End, sig syscall.Signal) int {
	switch e.Reason {
	case machine.PowerOff:
		return exitPowerOff
	case machine.Reset:
		return exitReset
	case machine.TripleFault:
		return exitTripleFault
	case machine.Panic:
		return exitPanic
	case machine.DebugExit:
		return exitDebug + int(min(e.Code, 63))
	}
	return exitSignal + int(sig)
}

// exitStatus returns the exit status for a guest's final end.
func exitStatus(e service.End) int {
	if e.Err != nil {
		return errorStatus(e.Err).code
	}
	return endStatus(e.End, e.Signal)
}

// endError returns what to report about a guest's end: nothing for an end that was
// requested.
func endError(e machine.End) error {
	switch e.Reason {
	case machine.Reset, machine.TripleFault, machine.Panic:
		return fmt.Errorf("the guest ended: %v", e)
	}
	return nil
}

func exitStatusTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-status",
		Short: "What the exit status of 'vmm run' says",
		Long: `Exit status:
    0  the guest powered off (ACPI S5), and nothing else
    1  this host cannot run it: KVM, memory, a file or socket of the host
       (and of 'vmm doctor': full kernels will not run here)
    2  the command line is wrong
    3  the kernel, an initrd, a disk, a share or the guest's command line cannot be used
    4  vmm itself went wrong (a bug: please report what it printed)
    5  (of other commands) no guest has that name
   10  the guest reset itself (reboot; a panic with panic=-1)
   11  triple fault: a fault that the guest could not handle (or reboot=t)
   12  the guest's kernel reported a panic (pvpanic)
   13  KVM cannot go on with the guest (internal error, failed entry)
   64  plus N: the guest wrote N to the debug-exit port, 0x501; 127 for 63 and more
  128  plus N: stopped by signal N; by Ctrl-a x as if by SIGINT (130)`,
	}
}

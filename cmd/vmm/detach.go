package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vmm/roster"
	"vmm/service"
)

// A guest in the background is the same command line in a session of its own. The child
// is marked by a variable in its environment. It reports on descriptor 3, which its
// parent reads, that its guest runs. Until then its standard error goes to the parent.
//
//	vmm run -d                       vmm run -d, VMM_DETACHED=FORMAT:PIPE (of the log until then; 3's inode)
//	starts --------------------->    checks everything, makes the machine
//	passes on its messages <----     standard error
//	prints the name, ends  <----     NAME\n; then its log is its standard error
const (
	detachedVariable = "VMM_DETACHED"
	readyFD          = 3
)

func detached() bool { return os.Getenv(detachedVariable) != "" }

// adoptDetached leaves only the format in the variable. It removes the variable if
// descriptor 3 is not the pipe that it names: then detach did not set it for this
// process.
func adoptDetached() {
	format, inode, _ := strings.Cut(os.Getenv(detachedVariable), ":")
	if is := pipe(readyFD); is != 0 && inode == strconv.FormatUint(is, 10) {
		os.Setenv(detachedVariable, format)
	} else {
		os.Unsetenv(detachedVariable)
	}
}

// detach runs the same command line in the background, and returns when its guest runs
// or has failed to start.
func (p *program) detach(cmd *cobra.Command, format logFormat) error {
	host := func(err error) error { return &statusError{exitHost, fmt.Errorf("the background: %w", err)} }
	ready, w, err := os.Pipe()
	if err != nil {
		return host(err)
	}
	defer ready.Close()
	child := exec.Command(executable(), os.Args[1:]...)
	child.Args[0] = os.Args[0]
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%d", detachedVariable, format.at(cmd.ErrOrStderr()), pipe(int(w.Fd()))))
	child.ExtraFiles = []*os.File{w}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said, err := child.StderrPipe()
	if err == nil {
		err = child.Start()
	}
	w.Close()
	if err != nil {
		return host(err)
	}
	if _, err := io.Copy(cmd.ErrOrStderr(), said); err != nil { // until the child has its log, or has ended
		io.Copy(io.Discard, said) // standard error has no reader; the child must not wait for one
	}
	if b, _ := io.ReadAll(ready); len(b) > 0 {
		fmt.Fprint(cmd.OutOrStdout(), string(b))
		return nil
	}
	var ended *exec.ExitError
	if err := child.Wait(); errors.As(err, &ended) && ended.ExitCode() > 0 {
		return &statusError{code: ended.ExitCode()} // it has printed the reason
	} else if err != nil {
		return host(err)
	}
	return &statusError{exitBug, errors.New("the background: it ended without a word")}
}

// executable is the path of this program. A process is named after the path by which it
// was started, and /proc/self/exe would name it exe, so that is used only if the file has
// been replaced since.
func executable() string {
	const self = "/proc/self/exe"
	path, err := os.Executable()
	if err != nil {
		return self
	}
	now, err := os.Stat(path)
	if err != nil {
		return self
	}
	if this, err := os.Stat(self); err != nil || !os.SameFile(this, now) {
		return self
	}
	return path
}

// started returns the function to call when the guest's first life begins. It empties
// the guest's output files and, in the background, leaves the parent.
func (o *runOptions) started(g *service.Guest) func() {
	return func() {
		if err := o.consoles.begin(); err != nil {
			o.config.Log.Warn("a file for the guest's output has what it had before", "err", err)
		}
		if !detached() {
			return
		}
		o.leaveParent(g)
		ready := os.NewFile(readyFD, "ready")
		fmt.Fprintln(ready, o.config.Name)
		ready.Close()
	}
}

// leaveParent gives the guest its own logs. Problems with these are reported to the
// parent, which must not be left waiting for the end of the guest's pipe.
func (o *runOptions) leaveParent(g *service.Guest) {
	use := func(f *os.File) error {
		return errors.Join(unix.Dup2(int(f.Fd()), 1), unix.Dup2(int(f.Fd()), 2))
	}
	log, err := g.OpenLog(roster.Log)
	if err != nil {
		o.config.Log.Warn("what vmm says of the guest is not kept", "err", err)
	}
	if err := g.KeepStderr(roster.StderrLog, use); err != nil {
		o.config.Log.Warn("what vmm's runtime says is not kept", "err", err)
		if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
			use(null)
			null.Close()
		}
	}
	if log != nil {
		o.log.set(log, o.logFormat.inFile())
	}
}

// restart is the flag --restart.
type restart struct{ service.Policy }

// Set implements pflag.Value.
func (r *restart) Set(s string) (err error) {
	r.Policy, err = service.ParsePolicy(s)
	return err
}

// Type implements pflag.Value.
func (*restart) Type() string { return "policy" }

// Suite runs a command that is part of `make test`, within a time limit that only a hanging
// command exceeds. It then says what took longest in it.
//
//	suite NAME SECONDS COMMAND...
//
// The limit is SECONDS times VMM_TIME. A command that exceeds it is sent SIGQUIT, which
// makes Go programs print where they are, and then killed.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vmm/test/allow"
)

// How long a command may take to end after it was told to.
const grace = 10 * time.Second

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "suite: usage: suite NAME SECONDS COMMAND...")
		os.Exit(2)
	}
	seconds, err := strconv.ParseUint(os.Args[2], 10, 31)
	if err != nil {
		fmt.Fprintf(os.Stderr, "suite: %s is not a number of seconds\n", os.Args[2])
		os.Exit(2)
	}
	if !run(os.Stdout, os.Args[1], allow.Time(time.Duration(seconds)*time.Second), os.Args[3:]) {
		os.Exit(1)
	}
}

// run runs a command with its output on out, and prints how it ended.
func run(out io.Writer, name string, limit time.Duration, argv []string) bool {
	fmt.Fprintf(out, "=== %s: at most %.0f s\n", name, limit.Seconds())
	times := &slowest{out: out}
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = times, times
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = grace
	began := time.Now()
	late, err := within(c, limit)
	if len(times.line) > 0 {
		fmt.Fprintln(times)
	}
	took := time.Since(began).Seconds()
	switch {
	case late:
		fmt.Fprintf(out, "=== %s: FAILED, not done after %.0f s%s\n", name, limit.Seconds(), times)
	case err != nil:
		fmt.Fprintf(out, "=== %s: FAILED after %.0f s: %v%s\n", name, took, err, times)
	default:
		fmt.Fprintf(out, "=== %s: ok, %.0f s%s\n", name, took, times)
	}
	return !late && err == nil
}

// within runs a command in its own process group, and ends the group after the limit.
// SIGINT and SIGTERM are passed on.
func within(c *exec.Cmd, limit time.Duration) (late bool, err error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := c.Start(); err != nil {
		return false, err
	}
	send := func(s syscall.Signal) { syscall.Kill(-c.Process.Pid, s) }
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case err := <-done:
			send(syscall.SIGKILL) // what it left running
			if errors.Is(err, exec.ErrWaitDelay) {
				err = nil
			}
			return late, err
		case s := <-signals:
			send(s.(syscall.Signal))
		case <-timer.C:
			if late {
				send(syscall.SIGKILL)
				continue
			}
			late = true
			send(syscall.SIGQUIT)
			timer.Reset(grace)
		}
	}
}

// String returns the text about the slowest that follows a verdict.
func (s *slowest) String() string {
	var b strings.Builder
	for i, e := range s.entries {
		b.WriteString([]string{"; slowest: ", ", "}[min(i, 1)])
		fmt.Fprintf(&b, "%s %.0f s", e.name, e.seconds)
	}
	return b.String()
}

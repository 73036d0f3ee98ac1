package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"vmm/test/allow"
)

// jobMain is the command
//
//	job TEXT KEYS COMMAND ...
//
// It runs the command as a shell with job control would: on a new terminal (with
// tostop), in the background, while a line for the shell is typed. Once the text is
// printed there, the command is brought to the foreground, without SIGCONT since it was
// not stopped, and gets the keys (quoted as in Go). Without keys it stays in the
// background. A & after the keys takes the terminal back once they are printed, and ends
// the command by SIGTERM. What appears on the terminal is printed. The exit status is the
// command's.
func jobMain() {
	status, err := asJob(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "job:", err)
		os.Exit(99)
	}
	os.Exit(status)
}

// asJob starts the shell, which must be a separate process: a session leader.
func asJob(args []string) (status int, err error) {
	screen, tty, err := pty.Open()
	if err != nil {
		return 0, err
	}
	shell := exec.Command("jobshell", args...)
	shell.Stdin, shell.Stdout, shell.Stderr = tty, os.Stdout, os.Stderr
	shell.ExtraFiles = []*os.File{screen}
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	var exit *exec.ExitError
	if err := shell.Run(); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return shell.ProcessState.ExitCode(), nil
}

// jobLimit bounds all that a job does.
var jobLimit = allow.Time(20 * time.Second)

// jobShellMain is the command jobshell, for job only: its standard input is the terminal,
// and descriptor 3 is the terminal's other end.
func jobShellMain() {
	s := &jobShell{screen: os.NewFile(3, "screen"), shown: make(chan struct{}, 1)}
	status, err := s.run(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "job:", err)
		os.Exit(99)
	}
	s.mu.Lock() // and keep it: later output does not count
	os.Stdout.Write(s.text)
	os.Exit(status)
}

type jobShell struct {
	screen *os.File
	child  *os.Process

	mu    sync.Mutex
	text  []byte        // guarded by mu; text on the terminal so far
	shown chan struct{} // of capacity 1: text has grown
}

const (
	typedLine = "for the shell\n"
	ttyFD     = 0
)

func (s *jobShell) run(text, keys string, args []string) (status int, err error) {
	if keys, err = strconv.Unquote(`"` + keys + `"`); err != nil {
		return 0, err
	}
	t, err := unix.IoctlGetTermios(ttyFD, unix.TCGETS)
	if err != nil {
		return 0, err
	}
	t.Lflag |= unix.TOSTOP
	if err := unix.IoctlSetTermios(ttyFD, unix.TCSETS, t); err != nil {
		return 0, err
	}
	go s.watch()
	s.screen.WriteString(typedLine) // still unread when the command starts
	if err := s.await(func() bool { return bytes.Contains(s.text, []byte("shell")) }); err != nil {
		return 0, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdin, os.Stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	signal.Ignore(syscall.SIGTTOU) // not earlier: the command would inherit it. A shell ignores it, to take the terminal back
	s.child = cmd.Process
	time.AfterFunc(jobLimit, func() { s.child.Kill() })
	keys, back := strings.CutSuffix(keys, "&")
	if keys != "" {
		err = s.bringForward(text, keys)
	}
	if err == nil && back {
		t.Lflag ^= unix.ECHO // the shell's own setting
		err = s.takeBack(keys, t)
	}
	if err != nil {
		s.child.Kill()
		return 0, err
	}
	var w unix.WaitStatus
	if _, err := unix.Wait4(s.child.Pid, &w, unix.WUNTRACED, nil); err != nil {
		return 0, err
	}
	if w.Stopped() {
		s.child.Kill()
		return 0, fmt.Errorf("it was stopped by %v", w.StopSignal())
	}
	if err := unix.IoctlSetPointerInt(ttyFD, unix.TIOCSPGRP, os.Getpid()); err != nil {
		return 0, err
	}
	after, err := unix.IoctlGetTermios(ttyFD, unix.TCGETS)
	if err == nil && *after != *t {
		err = fmt.Errorf("not restored: %+v was %+v", after, t)
	}
	return w.ExitStatus(), err
}

// bringForward does what fg does, once the command has printed the text and the shell has
// read its line.
func (s *jobShell) bringForward(text, keys string) error {
	if err := s.await(func() bool { return bytes.Contains(s.text, []byte(text)) }); err != nil {
		return err
	}
	if line, err := bufio.NewReader(os.Stdin).ReadString('\n'); line != typedLine {
		return fmt.Errorf("the shell has read %q, %v", line, err)
	}
	if err := unix.IoctlSetPointerInt(ttyFD, unix.TIOCSPGRP, s.child.Pid); err != nil {
		return err
	}
	err := s.await(func() bool {
		t, err := unix.IoctlGetTermios(ttyFD, unix.TCGETS)
		return err == nil && t.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) == 0
	})
	if err != nil {
		return fmt.Errorf("in the foreground, not raw: %w", err)
	}
	_, err = s.screen.WriteString(keys)
	return err
}

// takeBack takes the terminal from the command and ends the command.
func (s *jobShell) takeBack(printed string, t *unix.Termios) error {
	if err := s.await(func() bool { return bytes.Contains(s.text, []byte(printed)) }); err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(ttyFD, unix.TIOCSPGRP, os.Getpid()); err != nil {
		return err
	}
	if err := unix.IoctlSetTermios(ttyFD, unix.TCSETS, t); err != nil {
		return err
	}
	return s.child.Signal(syscall.SIGTERM)
}

// watch collects what appears on the terminal.
func (s *jobShell) watch() {
	b := make([]byte, 4096)
	for {
		n, err := s.screen.Read(b)
		s.mu.Lock()
		s.text = append(s.text, b[:n]...)
		s.mu.Unlock()
		select {
		case s.shown <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// await returns when ok returns true. It calls ok with mu held.
func (s *jobShell) await(ok func() bool) error {
	limit := time.After(jobLimit)
	tick := time.NewTicker(5 * time.Millisecond) // for changes that do not appear on the terminal
	defer tick.Stop()
	for {
		s.mu.Lock()
		done := ok()
		text := string(s.text)
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-s.shown:
		case <-tick.C:
		case <-limit:
			return fmt.Errorf("nothing more than %q", text)
		}
	}
}

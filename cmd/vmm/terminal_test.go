package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"vmm/console"
	"vmm/task"
	"vmm/test/allow"
)

// terminalMain is the command
//
//	terminal TEXT KEYS COMMAND ...
//
// It runs the command in a new terminal, types the keys (quoted as in Go) once the text
// is printed there, and prints all that appears. Its exit status is the command's. It
// fails if the terminal was not raw when it typed, or is not restored at the end.
func terminalMain() {
	status, err := inTerminal(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "terminal:", err)
		os.Exit(99)
	}
	os.Exit(status)
}

func inTerminal(text, keys string, args []string) (status int, err error) {
	keys, err = strconv.Unquote(`"` + keys + `"`)
	if err != nil {
		return 0, err
	}
	ptmx, tty, err := pty.Open()
	if err != nil {
		return 0, err
	}
	before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	typed, shown := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(shown)
		typed <- typeAfter(ptmx, tty, text, keys)
		io.Copy(os.Stdout, ptmx) // until no process has the terminal open
	}()
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(allow.Time(20 * time.Second)):
		cmd.Process.Kill()
		return 0, errors.New("the command does not end")
	}
	if typeErr := <-typed; typeErr != nil {
		return 0, typeErr
	}
	after, err2 := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err2 != nil {
		return 0, err2
	}
	tty.Close()
	<-shown
	if *before != *after {
		return 0, fmt.Errorf("not restored: %+v was %+v", after, before)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// typeAfter prints the terminal's output until the text appears, then types the keys.
func typeAfter(ptmx, tty *os.File, text, keys string) error {
	var seen []byte
	b := make([]byte, 4096)
	ptmx.SetReadDeadline(time.Now().Add(allow.Time(20 * time.Second)))
	for !bytes.Contains(seen, []byte(text)) {
		n, err := ptmx.Read(b)
		if err != nil {
			return fmt.Errorf("waiting for %q: %w after %q", text, err, seen)
		}
		os.Stdout.Write(b[:n])
		seen = append(seen, b[:n]...)
	}
	t, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	if keys != "" && t.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		return errors.New("not raw")
	}
	if _, err := ptmx.WriteString(keys); err != nil {
		return err
	}
	return nil
}

// talkMain is the command
//
//	talk SOCKET KEYS
//
// which sends the keys and prints what it receives until the other side closes.
func talkMain() {
	c, err := net.Dial("unix", os.Args[1])
	if err == nil {
		_, err = io.WriteString(c, os.Args[2])
	}
	if err == nil {
		_, err = io.Copy(os.Stdout, c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "talk:", err)
		os.Exit(1)
	}
}

// crashMain is the command
//
//	crash main|goroutine
//
// which opens the console and panics, in main or in a goroutine that owns the console.
func crashMain() {
	var r rescuer
	owner := task.Owner(r.panicked)
	defer owner.Rescue() // as executeRoot does
	con, err := console.Open("stdio", console.Options{Owner: owner})
	if err != nil {
		panic(err)
	}
	defer con.Close()
	r.con.Store(con)
	fmt.Println("hello")
	if slices.Contains(os.Args, "main") {
		panic("on purpose")
	}
	owner.Go(func() { panic("on purpose") })
	select {}
}

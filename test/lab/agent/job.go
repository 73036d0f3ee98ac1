package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"vmm/test/lab/wire"
)

// job is a command that is running or has ended.
type job struct {
	host   *host
	number int
	cmd    *exec.Cmd
	tty    *os.File    // the master of its terminal, or nil
	input  chan []byte // of capacity 1; the other end waits for Taken
}

func (j *job) say(r wire.Reply) {
	r.Job = j.number
	j.host.say(r)
}

// start starts a job and returns. The host is told when the job ends.
func start(h *host, number int, w *wire.Job) *job {
	j := &job{host: h, number: number, input: make(chan []byte, 1)}
	began := time.Now()
	wait, err := j.begin(w)
	if err != nil {
		j.say(wire.Reply{Exit: &wire.Exit{Status: 127, Why: err.Error()}})
		return j
	}
	go func() {
		wait()
		unix.Kill(-1, unix.SIGKILL) // processes left behind must not disturb the next job
		j.say(wire.Reply{Exit: &wire.Exit{Status: status(j.cmd.ProcessState), Took: time.Since(began)}})
	}()
	return j
}

func (j *job) begin(w *wire.Job) (wait func(), err error) {
	if err := share(w.Share); err != nil {
		return nil, err
	}
	path, err := lookPath(w.Argv[0], w.Dir, w.Env)
	if err != nil {
		return nil, err
	}
	j.cmd = &exec.Cmd{Path: path, Args: w.Argv, Dir: w.Dir, Env: w.Env, WaitDelay: 2 * time.Second,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if w.Terminal != nil {
		return j.beginTerminal(*w.Terminal)
	}
	stdin, err := j.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	j.cmd.Stdout = output(func(p []byte) { j.say(wire.Reply{Output: p}) })
	j.cmd.Stderr = output(func(p []byte) { j.say(wire.Reply{Error: p}) })
	if err := j.cmd.Start(); err != nil {
		return nil, err
	}
	go j.feed(stdin)
	return func() { j.cmd.Wait() }, nil
}

func (j *job) beginTerminal(size wire.Size) (wait func(), err error) {
	j.cmd.SysProcAttr.Setctty = true
	j.tty, err = pty.StartWithAttrs(j.cmd, &pty.Winsize{Rows: size.Rows, Cols: size.Cols}, j.cmd.SysProcAttr)
	if err != nil {
		return nil, err
	}
	go j.feed(j.tty)
	drained := make(chan struct{})
	go func() {
		// Ends with EIO when the last process has closed the terminal.
		io.Copy(output(func(p []byte) { j.say(wire.Reply{Output: p}) }), j.tty)
		close(drained)
	}()
	return func() {
		j.cmd.Wait()
		select {
		case <-drained:
		case <-time.After(j.cmd.WaitDelay): // a process that it started keeps the terminal open
		}
	}, nil
}

// feed writes incoming data to the job's standard input. It is no error if the job no longer
// reads.
func (j *job) feed(w io.WriteCloser) {
	for p := range j.input {
		w.Write(p)
		j.say(wire.Reply{Taken: true})
	}
	if j.tty == nil {
		w.Close()
	} else {
		w.Write([]byte{4}) // end of file, as a user types it
	}
}

// handle carries out a host's request about the job. It is called only by the goroutine that
// reads the wire.
func (j *job) handle(r *wire.Request) {
	switch {
	case r.Input != nil:
		j.input <- r.Input
	case r.InputEnd:
		close(j.input)
	case r.Resize != nil && j.tty != nil:
		pty.Setsize(j.tty, &pty.Winsize{Rows: r.Resize.Rows, Cols: r.Resize.Cols})
	case r.Kill && j.cmd != nil && j.cmd.Process != nil:
		unix.Kill(-1, unix.SIGKILL) // every process but 1 and this one
	}
}

// output is an io.Writer.
type output func([]byte)

func (o output) Write(p []byte) (int, error) { o(p); return len(p), nil }

// share mounts the results folder at path, once.
func share(path string) error {
	if path == "" {
		return nil
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), " "+strings.ReplaceAll(path, " ", `\040`)+" ") {
		return err
	}
	return mount{"/run/lab", path, "", unix.MS_BIND, ""}.do()
}

// lookPath finds a command as a shell with the job's PATH would.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	for _, e := range env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, d := range filepath.SplitList(list) {
			path := filepath.Join(d, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%s: no such command in PATH", name)
}

// status returns what a shell calls $?.
func status(s *os.ProcessState) int {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return s.ExitCode()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"vmm/test/lab/l1"
	"vmm/test/lab/wire"
)

// runOne runs one command with this process's own streams.
func runOne(ctx context.Context, p place, o options, argv []string) (int, error) {
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	j := wire.Job{Argv: argv, Dir: dir, Env: environment(o.Out), Timeout: o.timeout}
	s := l1.Streams{Input: standardInput(), Output: os.Stdout, Error: os.Stderr}
	// Without a terminal here, the command does not get one.
	if _, direct := p.(here); !direct && o.interactive && term.IsTerminal(int(os.Stdin.Fd())) {
		restore, err := useTerminal(&j, &s)
		if err != nil {
			return 0, err
		}
		defer restore()
	}
	exit, err := p.run(ctx, j, s)
	var late *l1.TimeoutError
	switch {
	case errors.As(err, &late):
		fmt.Fprintf(os.Stderr, "lab: %s: %v\n", argv[0], err)
		return exitTimeout, nil
	case err != nil:
		return 0, err
	case exit.Why != "":
		fmt.Fprintf(os.Stderr, "lab: %s\n", exit.Why)
	}
	return exit.Status, nil
}

// standardInput returns nil if there is certainly nothing to read: then the job may run
// twice.
func standardInput() io.Reader {
	info, err := os.Stdin.Stat()
	if null, err2 := os.Stat(os.DevNull); err != nil || err2 == nil && os.SameFile(info, null) {
		return nil
	}
	return os.Stdin
}

// useTerminal makes this process's terminal the job's. It is raw here, so that every key
// goes through.
func useTerminal(j *wire.Job, s *l1.Streams) (restore func(), err error) {
	fd := int(os.Stdin.Fd())
	size := func() wire.Size {
		if cols, rows, err := term.GetSize(fd); err == nil {
			return wire.Size{Rows: uint16(rows), Cols: uint16(cols)}
		}
		return wire.Size{Rows: 24, Cols: 80}
	}
	first := size()
	j.Terminal = &first
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	changes, resize := make(chan os.Signal, 1), make(chan wire.Size)
	signal.Notify(changes, syscall.SIGWINCH)
	s.Resize = resize
	go func() {
		for range changes {
			resize <- size()
		}
	}()
	return func() { term.Restore(fd, old) }, nil
}

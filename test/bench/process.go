package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"time"
)

// process is a running rival. Its standard output and error are one pipe. Its standard
// input is another, which never has data. Every rival uses these for the guest's
// console, and none needs a terminal.
type process struct {
	cmd    *exec.Cmd
	began  time.Time
	input  io.Closer
	chunks chan chunk // closed when no writer is left
	output []byte     // what expect has seen
}

type chunk struct {
	at   time.Time
	data []byte
}

// launch starts argv. The clock starts right before.
func launch(argv []string, inherit ...*os.File) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), chunks: make(chan chunk, 64)}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = w, w, inherit
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		r.Close()
		return nil, err
	}
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		r.Close()
		return nil, err
	}
	go p.read(r)
	return p, nil
}

func (p *process) read(r *os.File) {
	defer r.Close()
	defer close(p.chunks)
	for {
		b := make([]byte, 4096)
		n, err := r.Read(b)
		if err != nil {
			return
		}
		p.chunks <- chunk{time.Now(), b[:n]}
	}
}

// expect waits for a match in the output since the last match. It returns its groups
// and when its last byte came. It gives up when ctx ends.
func (p *process) expect(ctx context.Context, re *regexp.Regexp) (groups []string, at time.Time, err error) {
	for {
		if m := re.FindSubmatchIndex(p.output); m != nil {
			for i := 0; i < len(m); i += 2 {
				group := ""
				if m[i] >= 0 { // the group took part in the match
					group = string(p.output[m[i]:m[i+1]])
				}
				groups = append(groups, group)
			}
			p.output = p.output[m[1]:]
			return groups, at, nil
		}
		select {
		case c, ok := <-p.chunks:
			if !ok {
				return nil, at, fmt.Errorf("it ended and never printed %q; its last words: %s", re, p.tail())
			}
			p.output, at = append(p.output, c.data...), c.at
		case <-ctx.Done():
			return nil, at, fmt.Errorf("stalled (%v after %.1f s) before it printed %q; its last words: %s",
				context.Cause(ctx), time.Since(p.began).Seconds(), re, p.tail())
		}
	}
}

// tail returns the end of the output on one line.
func (p *process) tail() string {
	const most = 300
	t := bytes.TrimSpace(p.output[max(0, len(p.output)-most):])
	return string(bytes.Join(bytes.Fields(t), []byte(" ")))
}

// rest returns the tail of all output up to now.
func (p *process) rest() string {
	for {
		select {
		case c, ok := <-p.chunks:
			if ok {
				p.output = append(p.output, c.data...)
				continue
			}
		default:
		}
		return p.tail()
	}
}

// kill kills the process and waits until it and its output are gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.input.Close()
	for range p.chunks { // read must not block on the channel
	}
	p.cmd.Wait()
}

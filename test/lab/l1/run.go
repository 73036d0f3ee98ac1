package l1

import (
	"context"
	"fmt"
	"io"
	"time"

	"vmm/test/lab/wire"
)

// Streams are this side's ends of a job's standard streams. A nil Input is empty; what goes
// to a nil Output or Error is lost.
type Streams struct {
	Input         io.Reader
	Output, Error io.Writer
	Resize        <-chan wire.Size // of its terminal; may be nil
}

// A TimeoutError reports a job that was killed at its deadline.
type TimeoutError struct{ Limit time.Duration }

func (e *TimeoutError) Error() string { return fmt.Sprintf("killed: not done after %v", e.Limit) }

// Run runs one job to its end. The error is ErrLost, a *TimeoutError or that of ctx; a
// failure of the job itself is in Exit. A read of s.Input may still be in progress when Run
// returns.
func (m *Machine) Run(ctx context.Context, j wire.Job, s Streams) (wire.Exit, error) {
	j.Share = m.config.Out
	s.Output, s.Error = orDiscard(s.Output), orDiscard(s.Error)
	m.job++
	number := m.job
	if err := m.send(wire.Request{Job: number, Run: &j}); err != nil {
		return wire.Exit{}, err
	}
	taken, over := make(chan struct{}, 1), make(chan struct{}) // at most one input is in transit
	defer close(over)
	go m.pump(number, s.Input, taken, over)

	var deadline <-chan time.Time
	if j.Timeout > 0 {
		timer := time.NewTimer(j.Timeout)
		defer timer.Stop()
		deadline = timer.C
	}
	var killed error
	silent := time.NewTimer(m.silent)
	defer silent.Stop()
	for {
		select {
		case r, ok := <-m.replies:
			if !ok {
				return wire.Exit{}, m.lost("it ended while a job ran")
			}
			silent.Reset(m.silent)
			if r.Job != number {
				continue
			}
			if r.Exit != nil {
				return *r.Exit, killed
			}
			deliver(r, s, taken)
		case size := <-s.Resize:
			m.send(wire.Request{Job: number, Resize: &size})
		case <-silent.C:
			return wire.Exit{}, m.lost(fmt.Sprintf("no sign of life for %v", m.silent))
		case <-deadline:
			if killed != nil {
				return wire.Exit{}, m.lost(fmt.Sprintf("a killed job has not ended after %v", killLimit))
			}
			killed = &TimeoutError{j.Timeout}
			deadline = time.After(killLimit)
			m.send(wire.Request{Job: number, Kill: true})
		case <-ctx.Done():
			return wire.Exit{}, ctx.Err()
		}
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

func deliver(r wire.Reply, s Streams, taken chan<- struct{}) {
	switch {
	case r.Output != nil:
		s.Output.Write(r.Output)
	case r.Error != nil:
		s.Error.Write(r.Error)
	case r.Taken:
		taken <- struct{}{}
	}
}

// pump sends what it reads from input, one piece at a time, as the job takes it.
func (m *Machine) pump(number int, input io.Reader, taken <-chan struct{}, over <-chan struct{}) {
	buffer := make([]byte, 16<<10)
	for input != nil {
		n, err := input.Read(buffer)
		if n > 0 {
			m.send(wire.Request{Job: number, Input: buffer[:n]})
			select {
			case <-taken:
			case <-over:
				return
			}
		}
		if err != nil {
			break
		}
	}
	m.send(wire.Request{Job: number, InputEnd: true})
}

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"vmm/console"
	"vmm/machine"
	"vmm/task"
)

// consolePorts is the flag --console-port, which may be repeated:
//
//	NAME=unix:PATH | NAME=file:PATH | NAME=pty
type consolePorts []consolePort

type consolePort struct{ name, spec string }

// Set implements pflag.Value.
func (p *consolePorts) Set(text string) error {
	name, spec, _ := strings.Cut(text, "=")
	if name == "" || spec == "" {
		return errors.New("is NAME=unix:PATH, NAME=file:PATH or NAME=pty")
	}
	*p = append(*p, consolePort{name, spec})
	return nil
}

// String implements pflag.Value.
func (p *consolePorts) String() string {
	var words []string
	for _, one := range *p {
		words = append(words, one.name+"="+one.spec)
	}
	return strings.Join(words, " ")
}

// Type implements pflag.Value.
func (*consolePorts) Type() string { return "port" }

// config returns the ports, not connected yet.
func (p consolePorts) config() (list []machine.Port) {
	for _, one := range p {
		list = append(list, machine.Port{Name: one.name})
	}
	return list
}

// consoles are the host's ends of the open consoles.
type consoles []*console.Console

func (list consoles) close() {
	for _, c := range list {
		c.Close()
	}
}

// begin is called after the guest has been made and before it runs.
func (list consoles) begin() error {
	var errs []error
	for _, c := range list {
		errs = append(errs, c.Begin())
	}
	return errors.Join(errs...)
}

// open opens the host's ends of ports, which come from config. It prints the names that
// the host has chosen.
func (p consolePorts) open(ports []machine.Port, owner task.Owner, stderr io.Writer) (opened consoles, err error) {
	for i, one := range p {
		late := &struct{ io.ReadWriter }{} // set once OpenPort returns, before it is used
		ports[i].Stream = machine.NewStream(late, late)
		c, err := console.OpenPort(one.spec, owner, ports[i].Stream.SetConnected)
		if err != nil {
			opened.close()
			return nil, portStatus(one.name, err)
		}
		late.ReadWriter = c
		opened = append(opened, c)
		if one.spec == "pty" {
			fmt.Fprintf(stderr, "vmm: the guest's port %s is %s\n", one.name, c.Name())
		}
	}
	return opened, nil
}

// portStatus distinguishes a wrong spec from a host that refuses.
func portStatus(name string, err error) error {
	code := exitHost
	switch {
	case errors.Is(err, console.ErrSpec):
		code = exitUsage
	case errors.As(err, new(syscall.Errno)):
		err = fmt.Errorf("%w; choose another", err)
	}
	return &statusError{code, fmt.Errorf("--console-port %s: %w", name, err)}
}

// followSize returns the size of the console's terminal, which is kept up to date until
// end is called.
func followSize(con *console.Console, owner task.Owner) (size *machine.TerminalSize, end func()) {
	size = new(machine.TerminalSize)
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	size.Set(con.Size())
	owner.Go(func() {
		for range c {
			size.Set(con.Size())
		}
	})
	return size, func() {
		signal.Stop(c)
		close(c)
	}
}

// openConsoles connects what the guest has besides the bytes of its console: the
// console's size, and the ports.
func (o *runOptions) openConsoles(con *console.Console, owner task.Owner, stderr io.Writer) (end func(), err error) {
	ports, err := o.ports.open(o.config.Ports, owner, stderr)
	if err != nil {
		return nil, err
	}
	o.consoles = append(ports, con)
	size, forget := followSize(con, owner)
	o.config.ConsoleSize = size
	return func() {
		forget()
		ports.close()
	}, nil
}

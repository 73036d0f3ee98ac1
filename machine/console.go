package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"vmm/devices/virtio/console"
)

// ConsoleKind is what the guest's console is: which of its devices leads to
// ConsoleIn and ConsoleOut.
type ConsoleKind string

const (
	// ConsoleSerial is the serial port, ttyS0, and the default.
	ConsoleSerial ConsoleKind = "serial"
	// ConsoleVirtio is a virtio console, hvc0: faster, and it knows the size of
	// the terminal. What comes by the serial port is shown until the guest first
	// prints there.
	ConsoleVirtio ConsoleKind = "virtio"
)

// Port is a stream of bytes between a program in the guest, where it is
// /dev/virtio-ports/ and its name, and one of the host.
type Port struct {
	Name   string
	Stream *Stream `json:"-"` // nil is not connected
}

// MaxPorts bounds a Config.
const MaxPorts = console.MaxPorts

// validateConsole is what Validate knows of consoles and ports.
func (c *Config) validateConsole() error {
	switch c.Console {
	case "", ConsoleSerial, ConsoleVirtio:
	default:
		return &ConfigError{"Console", fmt.Sprintf("%q; must be serial or virtio", c.Console)}
	}
	if len(c.Ports) > MaxPorts {
		return &ConfigError{"Ports", fmt.Sprintf("%d; at most %d", len(c.Ports), MaxPorts)}
	}
	names := map[string]bool{}
	for _, p := range c.Ports {
		switch {
		case !portName(p.Name):
			return &ConfigError{"Ports", fmt.Sprintf("name %q; must be 1 to %d letters, digits, dots, dashes and underscores, such as org.test.0", p.Name, console.MaxName)}
		case names[p.Name]:
			return &ConfigError{"Ports", fmt.Sprintf("%s: given twice; names must differ", p.Name)}
		}
		names[p.Name] = true
	}
	return nil
}

// portName says whether a name can be that of a file in the guest, and of a udev
// link.
func portName(name string) bool {
	strange := func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", r)
	}
	return name != "" && len(name) <= console.MaxName && name[0] != '.' && !strings.ContainsFunc(name, strange)
}

// consoles are the virtio consoles of a machine.
type consoles struct {
	terminal *console.Device // nil: the console is the serial port
	ports    *console.Device // nil: there are none
}

// addConsoles makes the virtio consoles that the Config asks for.
func (m *Machine) addConsoles() error {
	c := &m.devices.consoles
	if m.config.Console == ConsoleVirtio {
		in, out := m.config.ConsoleIn, io.Writer(nil)
		if m.devices.screen != nil {
			out = m.devices.screen
		}
		c.terminal = console.NewTerminal(console.Stream{In: in, Out: out, Await: true})
		c.terminal.Owner = m.panicked
		p := m.newPart("virtio console")
		if s := m.config.ConsoleSize; s != nil {
			p.does(s.watch(c.terminal.SetSize))
		}
		if err := m.addVirtio(p, c.terminal, classSerial); err != nil {
			return err
		}
	}
	if len(m.config.Ports) == 0 {
		return nil
	}
	part := m.newPart("console ports")
	var list []console.Stream
	for _, p := range m.config.Ports {
		s := console.Stream{Name: p.Name}
		if p.Stream != nil {
			t := p.Stream.open(m.panicked)
			part.does(t.close)
			s.In, s.Out = t, p.Stream.out
		}
		list = append(list, s)
	}
	var err error
	if c.ports, err = console.NewPorts(list...); err != nil {
		return err
	}
	c.ports.Owner = m.panicked
	for i, p := range m.config.Ports {
		if p.Stream != nil {
			part.does(p.Stream.watch(func(connected bool) { c.ports.SetConnected(i, connected) }))
		}
	}
	return m.addVirtio(part, c.ports, classSerial)
}

// stop delivers what the guest has written, unless ctx is done before.
func (c *consoles) stop(ctx context.Context) error {
	var errs []error
	for _, d := range []*console.Device{c.terminal, c.ports} {
		if d != nil {
			errs = append(errs, d.Close(ctx))
		}
	}
	return errors.Join(errs...)
}

// sysrq is the key that Linux's hvc console takes for a SysRq, as a serial one
// does a break: Ctrl-o.
const sysrq = 'o' & 0x1f

// SendBreak sends a break over the serial line, or what has its meaning on a
// virtio console. Linux takes the next key for a SysRq.
func (m *Machine) SendBreak() {
	if t := m.devices.consoles.terminal; t != nil {
		t.Type(sysrq)
		return
	}
	m.devices.com1.Break()
}

// screen is where two devices print: the serial port until the virtio console
// first does, which then has it for itself. By then Linux has printed again what
// it had printed before.
type screen struct {
	out io.Writer

	mu    sync.Mutex // held while out takes something
	taken bool
}

// Write is of the virtio console.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = true
	return s.out.Write(p)
}

// early is a screen as the serial port sees it.
type early struct{ *screen }

func (e early) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.taken {
		return len(p), nil
	}
	return e.out.Write(p)
}

// serialConsole returns what is at the far end of COM1. Beside a virtio console
// it is output only: a key must not go to one that is not the guest's console
// any more.
func (m *Machine) serialConsole() (in io.Reader, out io.Writer) {
	if m.config.Console != ConsoleVirtio {
		return m.config.ConsoleIn, m.config.ConsoleOut
	}
	if m.config.ConsoleOut == nil {
		return nil, nil
	}
	m.devices.screen = &screen{out: m.config.ConsoleOut}
	return nil, early{m.devices.screen}
}

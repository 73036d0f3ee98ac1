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

// ConsoleKind selects the guest's console: which device leads to ConsoleIn and
// ConsoleOut.
type ConsoleKind string

const (
	// ConsoleSerial is the serial port, ttyS0; the default.
	ConsoleSerial ConsoleKind = "serial"
	// ConsoleVirtio is a virtio console, hvc0: faster, and it knows the size of
	// the terminal. Output of the serial port is shown until the guest first
	// prints on hvc0.
	ConsoleVirtio ConsoleKind = "virtio"
)

// Port is a byte stream between a guest program, which opens /dev/virtio-ports/NAME,
// and a host program.
type Port struct {
	Name   string
	Stream *Stream `json:"-"` // nil: not connected
}

// MaxPorts bounds a Config.
const MaxPorts = console.MaxPorts

// validateConsole checks the consoles and ports for Validate.
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

// portName reports whether name is valid as a file name in the guest and as a udev
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
	ports    *console.Device // nil: none
}

// addConsoles creates the virtio consoles that the Config asks for.
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

// stop delivers what the guest has written, unless ctx is done first.
func (c *consoles) stop(ctx context.Context) error {
	var errs []error
	for _, d := range []*console.Device{c.terminal, c.ports} {
		if d != nil {
			errs = append(errs, d.Close(ctx))
		}
	}
	return errors.Join(errs...)
}

// sysrq is Ctrl-o. Linux's hvc console takes this key as SysRq, as a serial console
// takes a break.
const sysrq = 'o' & 0x1f

// SendBreak sends a break over the serial line, or its equivalent on a virtio console.
// Linux takes the next key as a SysRq command.
func (m *Machine) SendBreak() {
	if t := m.devices.consoles.terminal; t != nil {
		t.Type(sysrq)
		return
	}
	m.devices.com1.Break()
}

// screen is the output shared by two devices: the serial port prints until the virtio
// console first does, which then owns it. By then Linux has printed its earlier
// messages again.
type screen struct {
	out io.Writer

	mu    sync.Mutex // held while writing to out
	taken bool
}

// Write is the virtio console's.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = true
	return s.out.Write(p)
}

// early is the screen as seen by the serial port.
type early struct{ *screen }

func (e early) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.taken {
		return len(p), nil
	}
	return e.out.Write(p)
}

// serialConsole returns the far end of COM1. With a virtio console it is output only:
// a key must not go to a port that is no longer the guest's console.
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

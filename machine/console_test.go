package machine

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"vmm/test/allow"
)

func TestConsoleConfig(t *testing.T) {
	many := make([]Port, MaxPorts+1)
	for i := range many {
		many[i].Name = strings.Repeat("x", i+1)
	}
	for _, test := range []struct {
		name string
		c    Config
		want string // error text; "" means none
	}{
		{"default", Config{}, ""},
		{"serial", Config{Console: "serial"}, ""},
		{"virtio", Config{Console: "virtio", Ports: []Port{{Name: "org.qemu.guest_agent.0"}, {Name: "b-1"}}}, ""},
		{"another", Config{Console: "vga"}, `Console: "vga"; must be serial or virtio`},
		{"most", Config{Ports: many[:MaxPorts]}, ""},
		{"too many", Config{Ports: many}, "Ports: 17; at most 16"},
		{"no name", Config{Ports: []Port{{}}}, "Ports: name"},
		{"a path", Config{Ports: []Port{{Name: "../x"}}}, "Ports: name"},
		{"a slash", Config{Ports: []Port{{Name: "a/b"}}}, "Ports: name"},
		{"a blank", Config{Ports: []Port{{Name: "a b"}}}, "Ports: name"},
		{"long", Config{Ports: []Port{{Name: strings.Repeat("x", 65)}}}, "Ports: name"},
		{"twice", Config{Ports: []Port{{Name: "a"}, {Name: "a"}}}, "Ports: a: given twice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.c.Kernel, test.c.CPUs, test.c.Memory = "x", 1, MinMemory
			err := test.c.Validate()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestConsoleCmdline(t *testing.T) {
	for _, test := range []struct {
		c    Config
		want string
	}{
		{Config{}, "console=ttyS0 panic=-1"},
		{Config{Console: ConsoleSerial}, "console=ttyS0 panic=-1"},
		{Config{Console: ConsoleVirtio, Append: []string{"quiet"}}, VirtioCmdline + " quiet"},
		{Config{Console: ConsoleVirtio, Cmdline: "mine"}, "mine"},
	} {
		if got := test.c.cmdline(0, nil); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// TestScreen: the serial port is shown until the virtio console prints.
func TestScreen(t *testing.T) {
	var b bytes.Buffer
	m := &Machine{config: Config{Console: ConsoleVirtio, ConsoleIn: strings.NewReader("keys"), ConsoleOut: &b}}
	in, out := m.serialConsole()
	if in != nil {
		t.Error("the serial port takes keys beside a virtio console")
	}
	for _, step := range []struct {
		w    io.Writer
		text string
	}{{out, "early "}, {out, "and more "}, {m.devices.screen, "virtio "}, {out, "late "}, {m.devices.screen, "again"}} {
		if n, err := io.WriteString(step.w, step.text); n != len(step.text) || err != nil {
			t.Errorf("%q: %d, %v", step.text, n, err)
		}
	}
	if b.String() != "early and more virtio again" {
		t.Errorf("%q", &b)
	}
	m.config.ConsoleOut = nil
	if in, out := m.serialConsole(); in != nil || out != nil {
		t.Error("something where nothing is connected")
	}
	m.config.Console = ""
	if in, _ := m.serialConsole(); in != m.config.ConsoleIn {
		t.Error("the serial port is not the console")
	}
}

// TestStream: input read for a machine that has ended goes to the next one.
func TestStream(t *testing.T) {
	r, w := io.Pipe()
	s := NewStream(r, nil)
	first := s.open(nil)
	p := make([]byte, 3)
	type result struct {
		text string
		err  error
	}
	read := func(turn *turn) chan result {
		c := make(chan result, 1)
		go func() {
			n, err := turn.Read(p)
			c <- result{string(p[:n]), err}
		}()
		return c
	}
	expect := func(c chan result, want result) {
		t.Helper()
		select {
		case got := <-c:
			if got != want {
				t.Fatalf("%+v, want %+v", got, want)
			}
		case <-time.After(allow.Time(5 * time.Second)):
			t.Fatalf("no %+v", want)
		}
	}
	c := read(first)
	io.WriteString(w, "abcdef")
	expect(c, result{"abc", nil})
	expect(read(first), result{"def", nil})
	c = read(first) // keeps waiting in the host's end, even after the machine ends
	for waits := false; !waits; runtime.Gosched() {
		s.mu.Lock()
		waits = s.reading
		s.mu.Unlock()
	}
	first.close()
	expect(c, result{"", io.EOF})
	second := s.open(nil)
	io.WriteString(w, "gh")
	expect(read(second), result{"gh", nil})
	expect(read(first), result{"", io.EOF})
	w.CloseWithError(errors.New("gone"))
	c = read(second)
	if got := <-c; got.err == nil || got.err == io.EOF {
		t.Errorf("%+v", got)
	}
	expect(read(NewStream(nil, nil).open(nil)), result{"", io.EOF})
}

func TestWatch(t *testing.T) {
	var s TerminalSize
	s.Set(80, 25)
	var got [][2]uint16
	forget := s.watch(func(cols, rows uint16) { got = append(got, [2]uint16{cols, rows}) })
	s.Set(100, 30)
	forget()
	s.Set(1, 1)
	if len(got) != 2 || got[0] != [2]uint16{80, 25} || got[1] != [2]uint16{100, 30} {
		t.Errorf("%v", got)
	}
	connected := false
	NewStream(nil, nil).watch(func(v bool) { connected = v })
	if !connected {
		t.Error("nobody is at the end of a new stream")
	}
}

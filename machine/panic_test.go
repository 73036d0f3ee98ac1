package machine

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"vmm/console"
	"vmm/guest/payload"
	"vmm/task"
	"vmm/test/allow"
)

// broken is a device with a bug.
type broken struct{}

func (broken) Read(uint64, []byte)  { panic("broken device") }
func (broken) Write(uint64, []byte) { panic("broken device") }

// TestPanic: a panic on a vCPU's thread ends the machine with an error, and the
// caller can restore the terminal.
func TestPanic(t *testing.T) {
	c := payloadConfig(t, payload.Out8(0x700, 1), payload.Spin())
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	defer tty.Close()
	mode := func() unix.Termios {
		tio, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return *tio
	}
	found := mode()
	con, err := console.Open("stdio", console.Options{Stdin: tty, Stdout: tty})
	if err != nil {
		t.Fatal(err)
	}
	defer con.Close()
	if mode() == found {
		t.Fatal("the terminal is not raw")
	}
	c.ConsoleIn, c.ConsoleOut = con, con
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.devices.ports.Map(0x700, 1, broken{}); err != nil {
		t.Fatal(err)
	}
	_, err = m.Run(t.Context())
	var bug *task.PanicError
	if !errors.As(err, &bug) || bug.Value != "broken device" || !strings.Contains(string(bug.Stack), "broken.Write") {
		t.Fatalf("the end: %v", err)
	}
	if con.Close(); mode() != found {
		t.Error("the terminal is not restored")
	}
}

// selfish is a device with a bug: it keeps its lock.
type selfish struct {
	mu      sync.Mutex
	entered chan struct{}
}

func (s *selfish) Read(uint64, []byte) { s.mu.Lock(); defer s.mu.Unlock() }

func (s *selfish) Write(uint64, []byte) {
	s.mu.Lock()
	close(s.entered)
	panic("selfish device")
}

// within fails the test if f takes too long.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(allow.Time(20 * time.Second)):
		t.Fatalf("%s does not end", what)
	}
}

// TestPanicWithLock: the machine ends although the code that stops the devices, a
// vCPU, and a caller of Pause all wait for a lock that is never released. Parts that
// do not depend on the lock are closed.
func TestPanicWithLock(t *testing.T) {
	c := crowded(t)
	c.Kernel = payloadConfig(t, payload.Out8(0x700, 1), payload.Spin()).Kernel
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	m.grace = 200 * time.Millisecond
	device := &selfish{entered: make(chan struct{})}
	if err := m.devices.ports.Map(0x700, 1, device); err != nil {
		t.Fatal(err)
	}
	m.devices.virtio = append(m.devices.virtio, locked{m.devices.virtio[0], device})
	wait := func() { <-device.entered; device.mu.Lock() }
	p := m.newPart("selfish")
	p.does(wait)
	pause := make(chan error, 1)
	go func() {
		<-device.entered
		pause <- m.Pause()
	}()
	within(t, "Run", func() {
		var bug *task.PanicError
		if _, err := m.Run(t.Context()); !errors.As(err, &bug) || bug.Value != "selfish device" {
			t.Errorf("the end: %v", err)
		}
	})
	within(t, "Close", func() {
		var bug *task.PanicError
		if err := m.Close(); !errors.As(err, &bug) {
			t.Errorf("closed: %v", err)
		}
	})
	for _, p := range m.parts {
		if p.name == "selfish" {
			continue
		}
		select {
		case <-p.closed:
		case <-time.After(allow.Time(10 * time.Second)):
			t.Errorf("%s is not closed", p.name)
		}
	}
	device.mu.Unlock()
	<-pause
}

// locked is a transport whose device takes a lock to stop.
type locked struct {
	transport
	device *selfish
}

func (l locked) Release() { l.device.mu.Lock(); defer l.device.mu.Unlock() }

// TestPanicAfterEnd: a bug that appears while the machine ends is reported as its end.
func TestPanicAfterEnd(t *testing.T) {
	m, err := New(payloadConfig(t, payload.Out8(portPM+pmSleepControl, 5<<2|1<<5), payload.Spin()))
	if err != nil {
		t.Fatal(err)
	}
	m.devices.virtio = append(m.devices.virtio, bad{m.devices.virtio[0]})
	var bug *task.PanicError
	within(t, "Run", func() {
		if _, err := m.Run(t.Context()); !errors.As(err, &bug) || bug.Value != "bad device" {
			t.Errorf("the end: %v", err)
		}
	})
	if err := m.Close(); !errors.As(err, &bug) {
		t.Errorf("closed: %v", err)
	}
}

const pmSleepControl = 0

// bad is a transport with a bug in Pause.
type bad struct{ transport }

func (bad) Pause(time.Duration) error { panic("bad device") }

// Console ends with a bug.
type (
	badReader struct{}
	badWriter struct{}
)

func (badReader) Read([]byte) (int, error)  { panic("bad reader") }
func (badWriter) Write([]byte) (int, error) { panic("bad writer") }

// TestPanicElsewhere: a panic on a goroutine other than a vCPU's also ends the
// machine.
func TestPanicElsewhere(t *testing.T) {
	for _, test := range []struct {
		name string
		in   io.Reader
		out  io.Writer
		want string
	}{
		{"serial receive", badReader{}, io.Discard, "bad reader"},
		{"serial transmit", nil, badWriter{}, "bad writer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := payloadConfig(t, payload.Print(portCOM1, "A"), payload.Spin())
			c.ConsoleIn, c.ConsoleOut = test.in, test.out
			m, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			within(t, "Run", func() {
				var bug *task.PanicError
				if _, err := m.Run(t.Context()); !errors.As(err, &bug) || bug.Value != test.want {
					t.Errorf("the end: %v", err)
				}
			})
		})
	}
}

// TestOwners: everything that starts goroutines has the machine as their owner.
// TestGoroutines checks that all are started that way.
func TestOwners(t *testing.T) {
	m, err := New(crowded(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	found := map[string]bool{}
	seen := map[visit]bool{}
	owners(reflect.ValueOf(&m.devices), "devices", seen, func(path string, owner reflect.Value) {
		found[owner.Type().String()+" of "+path[strings.LastIndex(path, "/")+1:]] = true
		if owner.IsNil() {
			t.Errorf("%s has none", path)
		}
	})
	owners(reflect.ValueOf(m.parts), "parts", seen, func(path string, owner reflect.Value) {
		if owner.IsNil() {
			t.Errorf("%s has none", path)
		}
	})
	if m.threads.Owner == nil {
		t.Error("the threads have none")
	}
	if len(found) < 10 {
		t.Errorf("found only %d: %v", len(found), found)
	}
}

// visit is a place that owners has visited.
type visit struct {
	at uintptr
	of reflect.Type
}

// owners calls f for each task.Owner reachable from v in our packages.
func owners(v reflect.Value, path string, seen map[visit]bool, f func(path string, owner reflect.Value)) {
	if v.Type() == reflect.TypeFor[task.Owner]() {
		f(path, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		at := visit{v.Pointer(), v.Type()}
		if v.IsNil() || seen[at] {
			return
		}
		seen[at] = true
		owners(v.Elem(), path, seen, f)
	case reflect.Interface:
		if !v.IsNil() {
			owners(v.Elem(), path, seen, f)
		}
	case reflect.Struct:
		if pkg := v.Type().PkgPath(); pkg != "" && !strings.HasPrefix(pkg, "vmm") {
			return
		}
		for i := range v.NumField() {
			owners(v.Field(i), path+"/"+v.Type().String()+"."+v.Type().Field(i).Name, seen, f)
		}
	case reflect.Slice, reflect.Array:
		if k := v.Type().Elem().Kind(); k >= reflect.Bool && k <= reflect.Complex128 {
			return // guest memory, for one
		}
		for i := range v.Len() {
			owners(v.Index(i), path, seen, f)
		}
	case reflect.Map:
		for r := v.MapRange(); r.Next(); {
			owners(r.Value(), path, seen, f)
		}
	}
}

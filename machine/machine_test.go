package machine_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vmm/boot"
	"vmm/boot/acpi"
	"vmm/devices/pc"
	"vmm/guest/payload"
	"vmm/kvm"
	"vmm/machine"
	"vmm/test/allow"
)

// needKVM skips the test where no machine can run. These tests run only a few
// instructions in ring 0, which any KVM can do.
func needKVM(t testing.TB) {
	sys, err := machine.OpenKVM(kvm.Device)
	if err != nil {
		t.Skip(err)
	}
	sys.Close()
}

func kernel(t testing.TB, code ...[]byte) machine.Config {
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, payload.ELF(payload.Code(code...)), 0o600); err != nil {
		t.Fatal(err)
	}
	return machine.Config{Kernel: path, CPUs: 1, Memory: 32 << 20}
}

func run(t testing.TB, c machine.Config) (machine.End, error) {
	needKVM(t)
	m, err := machine.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), allow.Time(20*time.Second))
	defer cancel()
	return m.Run(ctx)
}

// Ports, as layout.go has them.
const (
	com1      = 0x3f8
	i8042     = 0x64
	pmSleep   = 0x600
	pmReset   = 0x602
	debugExit = 0x501
	pvpanic   = 0x505
)

var powerOff = payload.Out8(pmSleep, 5<<2|1<<5)

func TestEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		code []byte
		want machine.End
	}{
		{"S5", powerOff, machine.End{Reason: machine.PowerOff}},
		{"reset register", payload.Out8(pmReset, 6), machine.End{Reason: machine.Reset}},
		{"reset by the keyboard controller", payload.Out8(i8042, 0xfe), machine.End{Reason: machine.Reset}},
		{"reset control", payload.Code(payload.Out8(0xcf9, 2), payload.Out8(0xcf9, 6)), machine.End{Reason: machine.Reset}},
		{"triple fault", payload.TripleFault(), machine.End{Reason: machine.TripleFault}},
		{"debug exit", payload.Out8(debugExit, 42), machine.End{Reason: machine.DebugExit, Code: 42}},
		{"panic", payload.Out8(pvpanic, 1), machine.End{Reason: machine.Panic}},
	} {
		t.Run(test.name, func(t *testing.T) {
			end, err := run(t, kernel(t, test.code, payload.Spin()))
			if err != nil || end != test.want {
				t.Errorf("%v, %v; want %v", end, err, test.want)
			}
		})
	}
}

// TestResetControl: port 0xcf9 also exists without PCI.
func TestResetControl(t *testing.T) {
	c := kernel(t, payload.Out8(0xcf9, 0x0e), payload.Spin())
	c.Transport = machine.MMIO
	if end, err := run(t, c); err != nil || end.Reason != machine.Reset {
		t.Errorf("%v, %v", end, err)
	}
}

func TestConsole(t *testing.T) {
	text := strings.Repeat("to the terminal\n", 20)
	c := kernel(t, payload.Print(com1, text), powerOff)
	var out bytes.Buffer
	c.ConsoleOut = &out
	if end, err := run(t, c); err != nil || end.Reason != machine.PowerOff || out.String() != text {
		t.Errorf("%v, %v, %q", end, err, out.String())
	}
}

func TestCancel(t *testing.T) {
	needKVM(t)
	m, err := machine.New(kernel(t, payload.Spin()))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	end, err := m.Run(ctx)
	if err != nil || end.Reason != machine.Stopped {
		t.Errorf("%v, %v", end, err)
	}
	if _, err := m.Run(t.Context()); err == nil {
		t.Error("a second Run")
	}
	if err := m.Pause(); err == nil {
		t.Error("Pause of a machine that has ended")
	}
}

func TestStates(t *testing.T) {
	needKVM(t)
	m, err := machine.New(kernel(t, payload.Spin()))
	if err != nil {
		t.Fatal(err)
	}
	var state *machine.StateError
	if err := m.Pause(); !errors.As(err, &state) {
		t.Errorf("Pause before Run: %v", err)
	}
	if err := m.Resume(); !errors.As(err, &state) {
		t.Errorf("Resume before Run: %v", err)
	}
	if err := m.PressPowerButton(); !errors.As(err, &state) {
		t.Errorf("PressPowerButton before Run: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if _, err := m.Run(t.Context()); !errors.As(err, &state) {
		t.Errorf("Run after Close: %v", err)
	}
}

// TestPauseAgainstPowerOff lets a machine end while others pause and resume it.
// Every call returns, and none claims to have paused a machine that is gone.
func TestPauseAgainstPowerOff(t *testing.T) {
	needKVM(t)
	n := 50
	if os.Getenv("VMM_SOAK") != "" {
		n = 1000
	}
	for i := range n {
		body := payload.Print(com1, strings.Repeat(".", 1+i%50*4))
		c := kernel(t, body, powerOff, payload.Spin())
		c.CPUs = 2
		m, err := machine.New(c)
		if err != nil {
			t.Fatal(err)
		}
		var callers sync.WaitGroup
		for range 2 {
			callers.Go(func() {
				for {
					if m.Pause() != nil || m.Resume() != nil {
						return
					}
				}
			})
		}
		end, err := m.Run(t.Context())
		if err != nil || end.Reason != machine.PowerOff {
			t.Errorf("%v, %v", end, err)
		}
		callers.Wait()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseWhileRunning(t *testing.T) {
	needKVM(t)
	m, err := machine.New(kernel(t, payload.Spin()))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan machine.End, 1)
	go func() {
		end, _ := m.Run(context.Background())
		ended <- end
	}()
	for m.Pause() != nil { // until it runs
		time.Sleep(time.Millisecond)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	select {
	case end := <-ended:
		if end.Reason != machine.Stopped {
			t.Error(end)
		}
	case <-time.After(allow.Time(10 * time.Second)):
		t.Fatal("Run goes on after Close")
	}
}

// TestPowerOffValue: the device treats the value that the tables tell the guest to
// write as a power-off.
func TestPowerOffValue(t *testing.T) {
	if acpi.PowerOff != pc.PMSleepS5<<2|1<<5 {
		t.Errorf("acpi.PowerOff is %#x", acpi.PowerOff)
	}
}

func TestBadConfig(t *testing.T) {
	good := kernel(t, powerOff)
	for field, change := range map[string]func(*machine.Config){
		"Kernel": func(c *machine.Config) { c.Kernel = "" },
		"CPUs":   func(c *machine.Config) { c.CPUs = 0 },
		"Memory": func(c *machine.Config) { c.Memory = 0 },
	} {
		c := good
		change(&c)
		var bad *machine.ConfigError
		if _, err := machine.New(c); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, c := range []machine.Config{
		{Kernel: "k", CPUs: -1, Memory: 64 << 20},
		{Kernel: "k", CPUs: 1000, Memory: 64 << 20},
		{Kernel: "k", CPUs: 1, Memory: 1},
		{Kernel: "k", CPUs: 1, Memory: 64<<20 + 1},
		{Kernel: "k", CPUs: 1, Memory: 1 << 50},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%+v is valid", c)
		}
	}
	c := good
	c.Kernel = filepath.Join(t.TempDir(), "absent")
	needKVM(t)
	var input *boot.InputError
	if _, err := machine.New(c); !errors.As(err, &input) {
		t.Errorf("an absent kernel: %v", err)
	}
}

// TestManyCPUs: vCPUs that the guest never starts cost nothing and end with the machine.
func TestManyCPUs(t *testing.T) {
	c := kernel(t, powerOff)
	c.CPUs = 64
	if end, err := run(t, c); err != nil || end.Reason != machine.PowerOff {
		t.Errorf("%v, %v", end, err)
	}
}

// TestMemory: the guest reads back RAM above 4 GiB.
func TestMemory(t *testing.T) {
	c := kernel(t, payload.Out8(debugExit, 1))
	c.Memory = 5 << 30
	if end, err := run(t, c); err != nil || end.Reason != machine.DebugExit {
		t.Errorf("%v, %v", end, err)
	}
}

// The API: a machine whose kernel prints a line and powers off.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "kernel") // any bzImage or vmlinux
	os.WriteFile(image, payload.ELF(payload.Code(payload.Print(com1, "hello\n"), powerOff)), 0o600)

	m, err := machine.New(machine.Config{
		Kernel:     image,
		CPUs:       1,
		Memory:     64 << 20,
		ConsoleOut: os.Stdout,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	end, err := m.Run(context.Background())
	fmt.Println(end, err)
	// Output:
	// hello
	// power off <nil>
}

// TestPauses pauses a machine with two counting vCPUs many times. Nothing counts
// while it is paused, and everything does afterwards.
func TestPauses(t *testing.T) {
	needKVM(t)
	n := 1000
	if os.Getenv("VMM_SOAK") != "" {
		n = 10_000
	}
	out := new(counter)
	c := kernel(t, payload.Forever(payload.Out8(com1, '.')))
	c.CPUs, c.ConsoleOut = 2, out
	m, err := machine.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	go m.Run(t.Context())
	for m.Pause() != nil { // until it runs
		time.Sleep(time.Millisecond)
	}
	var took []time.Duration
	for i := range n {
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i%100) * time.Microsecond) // at any moment
		start := time.Now()
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
		if i%50 == 0 && !out.still() {
			t.Fatal("the guest prints while it is paused")
		}
	}
	slices.Sort(took)
	t.Logf("%d pauses: median %v, longest %v", n, took[n/2], took[n-1])
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	for before := out.n.Load(); out.n.Load() == before; {
		if t.Context().Err() != nil {
			t.Fatal("the guest stands still after the last Resume")
		}
		time.Sleep(time.Millisecond)
	}
}

type counter struct{ n atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// still reports whether the output stops: earlier output may still arrive.
func (c *counter) still() bool {
	for range 50 {
		before := c.n.Load()
		time.Sleep(10 * time.Millisecond)
		if c.n.Load() == before {
			return true
		}
	}
	return false
}

// TestMain skips the examples where no machine can run.
func TestMain(m *testing.M) {
	flag.Parse()
	if sys, err := machine.OpenKVM(kvm.Device); err != nil {
		fmt.Println("examples skipped:", err)
		flag.Set("test.skip", "^Example")
	} else {
		sys.Close()
	}
	os.Exit(m.Run())
}

// Package machine builds a virtual machine and runs it. It is the only package that
// knows both KVM and the devices.
package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"vmm/boot"
	"vmm/kvm"
	"vmm/logline"
	"vmm/mem"
	"vmm/task"
)

// Machine is one virtual machine. Its methods may be called from any goroutine.
//
//	     Run              Pause
//	new -----> running -----------> paused
//	 |          |   ^-----------------|
//	 |          |         Resume      |
//	 |          v                     v
//	 |        ended <-----------------+   the guest ended, Run's context did,
//	 |          |                         or Close
//	 +----------+--> closed (Close)
type Machine struct {
	config Config
	files  *Files
	own    *Files // the same, unless the caller owns them
	log    *slog.Logger

	budget  budget  // for descriptors
	base    *part   // what all parts depend on
	parts   []*part // see free
	vm      *kvm.VM
	mem     *mem.Memory
	kcpus   []*kvm.VCPU
	vcpus   []*vcpu
	devices devices
	entry   *boot.Entry

	tracing atomic.Pointer[trace]

	halt    atomic.Bool // no guest instruction may run any more
	ends    chan ending // capacity 1: the first ending counts
	threads task.Group  // of vCPUs and of the work beside them

	bug    atomic.Pointer[task.PanicError] // the first panic
	broken chan struct{}                   // closed at the first panic
	lost   chan struct{}                   // closed grace after broken
	freed  atomic.Bool                     // Close was called
	grace  time.Duration                   // panicLimit, except in tests
	slow   atomic.Bool                     // the host had not completed some requests by the end of Run

	stop context.CancelFunc // of Run's context; set with running
	done chan struct{}      // closed when Run returns

	mu         sync.Mutex
	state      state      // guarded by mu
	time       *guestTime // guarded by mu, like the rest; when the guest was paused; nil if it is not, or its time runs on
	since      time.Time  // host time of the pause
	stops      *stops     // what the vCPU threads read for time
	timeLogged bool       // whether we logged that guest time runs on
}

type state int

const (
	created state = iota
	running
	paused
	ended
	closed
)

var stateText = [...]string{"not started", "running", "paused", "ended", "closed"}

// ending is how the machine ends: normally, or with the error of a vCPU.
type ending struct {
	end End
	err error
}

// New creates the machine that c describes, with its kernel loaded, ready to run. Its
// errors are *ConfigError and *boot.InputError, which the user must fix, and
// *HostError. The caller closes the machine.
func New(c Config) (*Machine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	sys, err := OpenKVM(cmp.Or(c.KVMDevice, KVMDevice))
	if err != nil {
		return nil, err
	}
	defer sys.Close()
	if n := MaxVCPUs(sys); c.CPUs > n {
		return nil, &ConfigError{"CPUs", fmt.Sprintf("%d; this host's KVM does at most %d", c.CPUs, n)}
	}
	m := newMachine(c)
	if err := m.promise(); err != nil {
		return nil, err
	}
	if err := m.build(m.steps(sys)); err != nil {
		return nil, err
	}
	return m, nil
}

func newMachine(c Config) *Machine {
	m := &Machine{
		config: c, files: c.Files, log: c.Log, base: newPart("the machine"), ends: make(chan ending, 1), broken: make(chan struct{}), lost: make(chan struct{}), grace: panicLimit, done: make(chan struct{}),
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.log = slog.New(logline.Limit(m.log.Handler())) // bounded, whatever the guest does
	m.threads.Owner = m.panicked
	return m
}

// lastOutput bounds the time to write a stopped machine's output.
const lastOutput = 2 * time.Second

// Run starts the guest and returns once, with how it ended: when the guest ends
// itself, when ctx is cancelled (Stopped), or with an error when the guest cannot
// continue. By then everything that the guest printed is written, however slow its
// reader; only the end of ctx cuts this short.
func (m *Machine) Run(ctx context.Context) (End, error) {
	ctx, err := m.begin(ctx)
	if err != nil {
		return End{}, err
	}
	defer close(m.done)
	defer m.stop()
	defer reserve(m.waiters())()
	m.devices.start()
	m.log.Debug("the guest starts") // the bench harness times this line
	for id := range m.vcpus {
		m.threads.Go(func() { m.runCPU(id) })
	}
	m.threads.Go(func() {
		if err := m.entry.Finish(); err != nil {
			m.log.Warn("the unpacked kernel is not cached", "err", err)
		}
	})
	var e ending
	select {
	case e = <-m.ends:
	case <-ctx.Done():
		e.end.Reason = Stopped
	}
	m.halt.Store(true)
	for _, v := range m.vcpus {
		v.cpu.Kick() // no guest instruction follows, whatever is wrong elsewhere
	}
	over := make(chan struct{})
	task.Owner(m.panicked).Go(func() {
		defer close(over)
		m.windDown(ctx, e)
	})
	select {
	case <-over:
	case <-m.lost:
	}
	if bug := m.bug.Load(); bug != nil {
		return End{}, bug
	}
	return e.end, e.err
}

// windDown stops everything in order, and delivers the guest's last output.
func (m *Machine) windDown(ctx context.Context, e ending) {
	m.setEnded()
	m.devices.release() // a vCPU may be waiting in one
	stops := task.Group{Owner: m.panicked}
	for _, v := range m.vcpus {
		stops.Go(v.stop)
	}
	stops.Wait()
	m.threads.Wait()
	if err := m.devices.pause(m.panicked); err != nil {
		m.slow.Store(true)
		m.log.Warn("the guest's disks", "err", err)
	}
	if e.err == nil {
		m.log.Debug("the guest ended", "how", e.end.String()) // its output may still be on its way
	}
	ctx, cancel := m.lastWords(ctx)
	defer cancel()
	if err := m.devices.stop(ctx); err != nil {
		m.log.Warn("the guest's last output", "err", err)
	}
}

// lastWords returns the context for delivering the guest's last output. A guest that
// ended itself waits for its reader as long as ctx lasts. After a stop or a panic the
// wait is short.
func (m *Machine) lastWords(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() != nil || m.bug.Load() != nil {
		return context.WithTimeout(context.Background(), min(lastOutput, m.grace/2))
	}
	return ctx, func() {}
}

// begin moves from created to running.
func (m *Machine) begin(ctx context.Context) (context.Context, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != created {
		return nil, &StateError{stateText[m.state]}
	}
	m.state = running
	ctx, m.stop = context.WithCancel(ctx)
	return ctx, nil
}

// setEnded moves from running or paused to ended, unless Close was faster.
func (m *Machine) setEnded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != closed {
		m.state = ended
	}
}

// runCPU is the goroutine, and the thread, of one vCPU.
func (m *Machine) runCPU(id int) {
	runtime.LockOSThread() // the loop does so again; the thread ends with it
	nameThread(fmt.Sprintf("vcpu %d", id))
	err := m.vcpus[id].loop()
	var in *endError
	var bad *CPUError
	switch {
	case err == nil:
		return
	case errors.As(err, &in):
		m.end(in.end)
		return
	case errors.As(err, &bad):
		bad.CPU = id
		if regs, err := m.kcpus[id].Regs(); err == nil {
			bad.RIP = regs.RIP
		}
	default:
		err = fmt.Errorf("vCPU %d: %w", id, err)
	}
	m.finish(ending{err: err})
}

// end ends the machine normally. Devices call it from a vCPU's thread; no guest
// instruction follows on that vCPU.
func (m *Machine) end(e End) { m.finish(ending{end: e}) }

func (m *Machine) finish(e ending) {
	m.halt.Store(true)
	select {
	case m.ends <- e:
	default: // another was first
	}
}

// Pause stops every vCPU between two instructions, and returns when no guest
// instruction runs any more. Time stands still in the guest until Resume, except for
// its real-time clock. Pausing a paused machine does nothing.
func (m *Machine) Pause() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == paused {
		return nil
	} else if m.state != running {
		return &StateError{stateText[m.state]}
	}
	m.devices.release()
	m.expectStops()
	if err := m.all((*vcpu).pause); err != nil {
		return err
	}
	m.freeze()
	if err := m.devices.pause(m.panicked); err != nil {
		return errors.Join(err, m.resume())
	}
	m.state = paused
	return nil
}

// Resume undoes Pause. Resuming a running machine does nothing.
func (m *Machine) Resume() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == running {
		return nil
	} else if m.state != paused {
		return &StateError{stateText[m.state]}
	}
	if err := m.resume(); err != nil {
		return err
	}
	m.state = running
	return nil
}

// resume restarts, in reverse order, what Pause stopped. m.mu is held.
func (m *Machine) resume() error {
	m.thaw()
	m.devices.resume()
	return m.all((*vcpu).resume)
}

// all makes the call on all vCPUs at once. If a vCPU has ended, the machine has ended.
func (m *Machine) all(f func(*vcpu) error) error {
	errs := make([]error, len(m.vcpus))
	calls := task.Group{Owner: m.panicked}
	for i, v := range m.vcpus {
		calls.Go(func() { errs[i] = f(v) })
	}
	calls.Wait()
	err := errors.Join(errs...)
	if errors.Is(err, errEnded) {
		return &StateError{stateText[ended]}
	}
	return err
}

// PressPowerButton asks the guest to power off, like a short press of the button on a
// PC's case. A guest may take its time or ignore it. The error is ErrEnded if the
// guest has ended.
func (m *Machine) PressPowerButton() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == ended {
		return ErrEnded
	} else if m.state != running && m.state != paused {
		return &StateError{stateText[m.state]}
	}
	m.devices.powerButton.press()
	return nil
}

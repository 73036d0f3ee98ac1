// Package service runs one guest under a name, from its first start to its final end:
// it restarts the guest as its policy says, keeps what the guest prints, and serves
// the API through which other processes pause, stop and watch it.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"vmm/api"
	"vmm/logline"
	"vmm/machine"
	"vmm/roster"
	"vmm/task"
)

// Options are what a guest has besides its machine. All are optional.
type Options struct {
	// Roster holds the guest's name, its API and its console log. With nil the guest
	// has none of these. With Keep the guest stays in the roster after it has ended.
	Roster *roster.Roster
	Keep   bool

	Policy      Policy
	StopTimeout time.Duration // between Stop and the kill

	// Input and Output are the console that the guest was started on. Others may watch
	// and type as well. Output may make the guest wait.
	Input  io.Reader
	Output io.Writer

	// Status returns this process's exit status for an End. It is recorded for others
	// to read.
	Status func(End) int
	// Owner owns the goroutines that outlive a machine.
	Owner task.Owner

	boot func(machine.Config) (vm, error) // nil is machine.New
}

// vm is the part of *machine.Machine that is used here; tests bring their own.
type vm interface {
	Run(context.Context) (machine.End, error)
	Pause() error
	Resume() error
	PressPowerButton() error
	SendBreak()
	SetBalloon(bytes uint64) error
	BalloonStats() (machine.BalloonStats, error)
	Stats() machine.Stats
	Trace() (exits <-chan machine.Exit, stop func(), err error)
	Done() <-chan struct{}
	Close() error
}

func boot(c machine.Config) (vm, error) {
	m, err := machine.New(c)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// End is how a guest finally ended.
type End struct {
	machine.End
	Err    error          // what went wrong; nil if nothing did
	Signal syscall.Signal // what stopped it; 0 if nothing did
}

// Guest is one guest. Its methods may be called from any goroutine.
//
//	New     Run                   for good
//	----> starting --> running ----------> ended
//	          ^        |  ^ |
//	          |  again |  | | Pause
//	          +--------+  | v
//	              Resume paused
type Guest struct {
	o      Options
	config machine.Config
	log    *slog.Logger
	claim  *roster.Claim // nil: it has no name
	in     *inbox
	out    *output
	server *server // nil: it has no API
	stderr *stderr // nil: this package does not manage it

	over chan struct{} // closed after the final end

	bug     atomic.Pointer[task.PanicError] // see Fail
	failing context.Context                 // ends with it
	fail    context.CancelFunc

	mu      sync.Mutex
	machine vm                 // guarded by mu; nil between two lives
	kill    context.CancelFunc // guarded by mu; likewise
	sig     syscall.Signal     // guarded by mu; the first that asked to stop
	stop    chan struct{}      // closed with it
	about   api.Guest          // guarded by mu
}

// New takes the guest's name and starts to serve its API. The caller runs the guest
// and closes it.
func New(c machine.Config, o Options) (*Guest, error) {
	g := &Guest{o: o, config: c, log: c.Log, in: newInbox(), over: make(chan struct{}), stop: make(chan struct{})}
	g.failing, g.fail = context.WithCancel(context.Background())
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	g.log = slog.New(logline.Limit(g.log.Handler())) // over all lives of the guest, which may be short
	g.config.Log = g.log
	if g.o.boot == nil {
		g.o.boot = boot
	}
	config, err := configJSON(c)
	if err != nil {
		return nil, err
	}
	policy := o.Policy.String()
	g.about = api.Guest{Name: c.Name, State: api.Starting, Pid: os.Getpid(), Created: time.Now(), Restart: &policy, Config: config}
	var log *logFile
	if o.Roster != nil {
		if g.claim, err = o.Roster.Claim(c.Name, o.Keep); err != nil {
			return nil, err
		}
		if log, err = openLog(g.claim.Root(), ConsoleLog, LogSize); err != nil {
			g.claim.Abandon()
			return nil, err
		}
	}
	g.out = newOutput(o.Output, log, g.tellOutage)
	g.describe()
	if g.claim != nil {
		if g.server, err = g.serve(g.claim.Socket()); err != nil {
			g.out.Close()
			g.claim.Abandon()
			return nil, err
		}
	}
	if o.Input != nil {
		o.Owner.Go(func() { g.in.fill(o.Input) })
	}
	return g, nil
}

// ConsoleLog is the file in a guest's folder in which ReadLog finds its output.
const ConsoleLog = roster.ConsoleLog

// configJSON returns the Config as the API shows it.
func configJSON(c machine.Config) (m map[string]any, err error) {
	b, err := json.Marshal(c)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// describe records what the guest is, for processes that do not ask the guest itself.
// The caller holds mu, or no other goroutine has g yet.
func (g *Guest) describe() {
	if g.claim == nil {
		return
	}
	b, err := json.Marshal(g.about)
	if err == nil {
		err = g.claim.SetRecord(b)
	}
	if err != nil {
		g.log.Warn("what the guest is cannot be written down", "err", err)
	}
}

// Run runs the guest until its final end or until ctx is done. It is called once. All
// lives use the files that the Config's paths lead to now, or the Config's Files.
// started, which may be nil, is called when the first life begins.
func (g *Guest) Run(ctx context.Context, started func()) End {
	if g.config.Files == nil {
		files, err := g.hold()
		if err != nil {
			return g.finish(End{Err: err})
		}
		defer files.Close()
		g.config.Files = files
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer g.o.Owner.ContextFunc(g.failing, cancel)()
	var past history
	for {
		began := time.Now()
		e, lived := g.live(ctx, started)
		started = nil
		if bug := g.bug.Load(); bug != nil {
			return g.finish(End{Err: bug})
		}
		pause, again := past.next(g.o.Policy, e.End, e.Err, time.Since(began))
		off := e.Err == nil && e.Reason == machine.PowerOff && g.isStopped() // the guest has obeyed
		if !again || off || !lived && g.restarts() == 0 {
			return g.finish(e)
		}
		if !g.rest(ctx, pause) {
			return g.finish(End{End: machine.End{Reason: machine.Stopped}})
		}
		if bug := (*task.PanicError)(nil); errors.As(e.Err, &bug) {
			g.log.Error("internal error of vmm, after which the guest is started again: please report it", "panic", bug.Value, "stack", string(bug.Stack))
			continue
		}
		g.log.Info("restarting", "after", e)
	}
}

// Fail ends the guest for good because something that outlives its machines, such as
// its console or its API, has panicked: another life would not repair that. It takes
// no lock, and returns false if the guest has ended already.
func (g *Guest) Fail(p *task.PanicError) bool {
	select {
	case <-g.over:
		return false
	default:
	}
	g.bug.CompareAndSwap(nil, p)
	g.fail()
	return true
}

// hold resolves the paths in the Config, for all lives. The guest may not have write
// access to anything in the roster either.
func (g *Guest) hold() (*machine.Files, error) {
	if g.o.Roster == nil {
		return machine.Hold(&g.config)
	}
	return machine.Hold(&g.config, machine.Place{Name: "the runtime directory", Path: g.o.Roster.Dir(), Root: true})
}

func (e End) String() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return e.End.String()
}

func (g *Guest) isStopped() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sig != 0
}

func (g *Guest) restarts() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.about.Restarts
}

// rest waits between two lives, and reports whether there is to be another.
func (g *Guest) rest(ctx context.Context, pause time.Duration) bool {
	select {
	case <-time.After(pause):
	case <-g.stop:
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sig != 0 || ctx.Err() != nil {
		return false
	}
	g.about.Restarts++
	return true
}

// live is one life of the guest, from power-on to its end. lived is false if the
// guest could not be powered on.
func (g *Guest) live(ctx context.Context, started func()) (e End, lived bool) {
	defer task.Owner(func(p *task.PanicError) { e, lived = End{Err: p}, true }).Rescue()
	c := g.config
	session := g.in.open()
	defer session.Close()
	c.ConsoleIn, c.ConsoleOut = session, g.out
	m, err := g.o.boot(c)
	if err != nil {
		return End{Err: err}, false
	}
	defer func() { g.closeMachine(m, &e) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.set(m, cancel)
	defer g.set(nil, nil)
	if started != nil {
		started()
	}
	end, err := m.Run(ctx)
	return End{End: end, Err: err}, true
}

// closeMachine closes m. e is how m ended; if only the close finds a bug, e becomes that.
func (g *Guest) closeMachine(m vm, e *End) {
	err := m.Close()
	var bug *task.PanicError
	var stuck *machine.StuckError
	if errors.As(err, &bug) && e.Err == nil {
		*e = End{Err: bug}
	}
	switch {
	case errors.As(err, &stuck):
		err = stuck
	case bug != nil:
		return
	}
	if err != nil {
		g.log.Warn("not all of the guest is given back to the host", "err", err)
	}
}

// set makes m the running machine; nil means none.
func (g *Guest) set(m vm, kill context.CancelFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.machine, g.kill = m, kill
	if m == nil {
		g.about.State = api.Starting // or, soon, ended
		g.describe()
		return
	}
	if g.sig != 0 {
		kill() // the kill came while there was no machine
	}
	now := time.Now()
	g.about.State, g.about.Started = api.Running, &now
	bound := g.config.Files.Bound(g.config)
	if config, err := configJSON(bound); err == nil {
		g.about.Config = config
	}
	g.about.Ports = published(bound.Nets)
	g.describe()
}

// published returns the host's ports that lead to the guest.
func published(nets []machine.Net) (ports []api.Port) {
	for i, n := range nets {
		for _, f := range n.Forwards {
			protocol := api.Tcp
			if f.UDP {
				protocol = api.Udp
			}
			ports = append(ports, api.Port{Card: i, Protocol: protocol, Address: f.Listen.Addr().String(), Port: int(f.Listen.Port()), GuestPort: int(f.Guest)})
		}
	}
	return ports
}

// finish reports the end to everyone who waits for it.
func (g *Guest) finish(e End) End {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.Signal = g.sig
	end := api.End{Reason: e.End.String(), At: time.Now()}
	if e.Err != nil {
		text := e.Err.Error()
		end.Reason, end.Error = "error", &text
	} else if e.Reason == machine.DebugExit {
		code := int64(e.Code)
		end.Code = &code
	}
	if g.o.Status != nil {
		end.Status = g.o.Status(e)
	}
	g.about.State, g.about.End, g.about.Ports = api.Ended, &end, nil
	g.describe()
	close(g.over)
	return e
}

// Close ends what is around the guest, which has ended or was never run.
func (g *Guest) Close() error {
	defer g.fail() // nothing depends on it any more
	var errs []error
	errs = append(errs, g.out.Close())
	if g.stderr != nil {
		errs = append(errs, g.stderr.Close())
	}
	if g.server != nil {
		errs = append(errs, g.server.close())
	}
	if g.claim != nil && g.About().Started == nil {
		errs = append(errs, g.claim.Abandon()) // a guest that never ran is not kept
	} else if g.claim != nil {
		errs = append(errs, g.claim.Release())
	}
	return errors.Join(errs...)
}

// About describes the guest.
func (g *Guest) About() api.Guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.about
}

// tellOutage logs that the guest's output is not being kept, or is kept again.
func (g *Guest) tellOutage(err error, lost int64) {
	if err != nil {
		g.log.Warn("the guest's output is not kept until that is mended", "err", err)
		return
	}
	g.log.Warn("the guest's output is kept again", "bytes lost", lost)
}

// OpenLog makes a log file in the guest's folder, which must exist. The file keeps at
// least the last LogSize bytes written to it. It stays open.
func (g *Guest) OpenLog(name string) (io.Writer, error) {
	l, err := openLog(g.claim.Root(), name, LogSize)
	if err != nil {
		return nil, err
	}
	return l, nil
}

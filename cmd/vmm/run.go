package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"vmm/boot"
	"vmm/console"
	"vmm/machine"
)

// runOptions is what the flags of 'vmm run' say.
type runOptions struct {
	config      machine.Config
	memory      size
	serial      string
	onReboot    string
	logLevel    string
	stopTimeout time.Duration
	cache       string
}

const runExamples = `  # A shell in the guest; Ctrl-a x leaves, Ctrl-a ? helps
  vmm run --kernel bzImage --initrd initrd.cpio

  # From a script: the guest's console is standard input and output
  echo 'uname -a' | vmm run --kernel bzImage --initrd initrd.cpio

  # Two vCPUs, two initrds, one more word on the kernel's command line
  vmm run -k bzImage -i initrd.cpio -i modules.cpio -c 2 -m 2G --append debug

  # The console on a socket; connect with: socat - UNIX:guest.sock
  vmm run -k bzImage -i initrd.cpio --serial unix:guest.sock`

func newRun() *cobra.Command {
	o := &runOptions{memory: 512 << 20}
	cmd := &cobra.Command{
		Use:     "run --kernel FILE [flags]",
		Short:   "Run a guest",
		Long:    "Run a Linux kernel in a new virtual machine until it powers off. The exit status says how it ended: see 'vmm help exit-status'.",
		Example: runExamples,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	c := &o.config
	f.StringVarP(&c.Kernel, "kernel", "k", "", "kernel: a bzImage or an ELF vmlinux")
	f.StringArrayVarP(&c.Initrds, "initrd", "i", nil, "initrd; several are loaded one behind the other")
	f.StringVar(&c.Cmdline, "cmdline", "", "the kernel's command line, in place of the default: "+machine.DefaultCmdline+" tsc_early_khz=...")
	f.StringArrayVarP(&c.Append, "append", "a", nil, "add to the kernel's command line")
	f.IntVarP(&c.CPUs, "cpus", "c", 1, "number of vCPUs")
	f.VarP(&o.memory, "memory", "m", "memory, with its unit: 512M, 2G")
	f.StringVar(&o.serial, "serial", "stdio", "the guest's first serial port: stdio, none, file:PATH, unix:PATH or pty")
	f.Var(&c.Boot, "boot", "how to start the kernel: auto, direct, bzimage or pvh")
	f.StringVar(&o.onReboot, "on-reboot", "exit", "when the guest resets: exit or restart")
	f.StringVar(&c.Name, "name", "", "name of the guest, for logs (default: vmm and the process id)")
	f.StringVar(&o.logLevel, "log-level", "warn", "what to log to standard error: debug, info, warn or error")
	f.DurationVar(&o.stopTimeout, "stop-timeout", 30*time.Second, "how long a guest may take to power off after SIGINT or SIGTERM")
	f.StringVar(&o.cache, "kernel-cache", defaultCache(), "directory of unpacked kernels; empty for none")
	cmd.RegisterFlagCompletionFunc("boot", cobra.FixedCompletions([]string{"auto", "direct", "bzimage", "pvh"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("on-reboot", cobra.FixedCompletions([]string{"exit", "restart"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("serial", cobra.FixedCompletions([]string{"stdio", "none", "file:", "unix:", "pty"}, cobra.ShellCompDirectiveNoSpace))
	return cmd
}

// noArgs is cobra.NoArgs with advice.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &statusError{exitUsage, fmt.Errorf("unexpected argument %q; see '%s --help'", args[0], cmd.CommandPath())}
	}
	return nil
}

// defaultCache is where unpacked kernels are kept, "" if the user has no place.
func defaultCache() string {
	dir, _ := boot.CacheDir()
	return dir
}

// complete checks the flags against each other and makes the Config whole.
func (o *runOptions) complete(stderr io.Writer) error {
	if o.onReboot != "exit" && o.onReboot != "restart" {
		return fmt.Errorf("--on-reboot %q: must be exit or restart", o.onReboot)
	}
	if o.stopTimeout < 0 {
		return fmt.Errorf("--stop-timeout %v: must not be negative", o.stopTimeout)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return fmt.Errorf("--log-level %q: must be debug, info, warn or error", o.logLevel)
	}
	c := &o.config
	if c.Name == "" {
		c.Name = fmt.Sprintf("vmm-%d", os.Getpid())
	}
	c.Memory = uint64(o.memory)
	c.KernelCache = o.cache
	c.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})).With("guest", c.Name)
	return c.Validate()
}

func (o *runOptions) run(cmd *cobra.Command) error {
	if err := o.complete(cmd.ErrOrStderr()); err != nil {
		return &statusError{exitUsage, flagName(err)}
	}
	if flag, err := machine.HardwareFlag(machine.CPUInfo); err == nil && flag == "" {
		o.config.Log.Warn(machine.InterpretedWarning)
	}
	g := newGuest(o.config.Log, o.stopTimeout)
	con, err := console.Open(o.serial, console.Options{Quit: g.quit, Break: g.sendBreak})
	if err != nil {
		return serialStatus(err)
	}
	defer con.Close()
	if o.serial == "pty" {
		fmt.Fprintf(cmd.ErrOrStderr(), "vmm: the guest's serial port is %s\n", con.Name())
	}
	defer g.handleSignals()()
	var in *inbox
	if !con.None() {
		in = newInbox(con)
		o.config.ConsoleOut = con
	}
	for {
		end, err := g.runOnce(cmd.Context(), o.config, in)
		if err != nil {
			return errorStatus(flagName(err))
		}
		again := end.Reason == machine.Reset || end.Reason == machine.TripleFault
		if !again || o.onReboot != "restart" {
			return &statusError{code: endStatus(end, g.stoppedBy())}
		}
		o.config.Log.Info("restarting", "after", end)
	}
}

// serialStatus tells a spec that is wrong from a host that refuses.
func serialStatus(err error) error {
	code := exitUsage
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		code = exitHost
	}
	return &statusError{code, fmt.Errorf("--serial: %w", err)}
}

// flagName says with flags what a *machine.ConfigError says with fields.
func flagName(err error) error {
	var c *machine.ConfigError
	if !errors.As(err, &c) {
		return err
	}
	flags := map[string]string{"Kernel": "--kernel", "CPUs": "--cpus", "Memory": "--memory"}
	return &machine.ConfigError{Field: flags[c.Field], Why: c.Why}
}

// guest is the machine that runs, as signals and the console's keys see it.
type guest struct {
	log     *slog.Logger
	timeout time.Duration

	mu      sync.Mutex
	machine *machine.Machine   // guarded by mu; nil between two lives
	kill    context.CancelFunc // guarded by mu; likewise
	sig     syscall.Signal     // guarded by mu; the first that asked to stop
}

func newGuest(log *slog.Logger, timeout time.Duration) *guest {
	return &guest{log: log, timeout: timeout}
}

// runOnce is one life of the guest, from power-on to its end. in may be nil.
func (g *guest) runOnce(ctx context.Context, c machine.Config, in *inbox) (machine.End, error) {
	if in != nil {
		session := in.open()
		defer session.Close()
		c.ConsoleIn = session
	}
	m, err := machine.New(c)
	if err != nil {
		return machine.End{}, err
	}
	defer m.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.mu.Lock()
	g.machine, g.kill = m, cancel
	if g.sig != 0 {
		cancel() // it came while there was no machine
	}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.machine, g.kill = nil, nil
	}()
	return m.Run(ctx)
}

// handleSignals makes the first SIGINT, SIGTERM or SIGHUP press the power
// button and the second one stop the guest at once. The function that it
// returns undoes that.
func (g *guest) handleSignals() (undo func()) {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for s := range c {
			g.signal(s.(syscall.Signal))
		}
	}()
	return func() { signal.Stop(c) }
}

func (g *guest) signal(s syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sig != 0 || g.machine == nil {
		g.stop(s)
		return
	}
	g.sig = s
	if err := g.machine.PressPowerButton(); err != nil {
		g.stop(s) // not running yet
		return
	}
	g.log.Info("asked the guest to power off; a second signal stops it at once", "signal", s, "timeout", g.timeout)
	time.AfterFunc(g.timeout, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.log.Warn("the guest did not power off in time", "timeout", g.timeout)
		g.stop(s)
	})
}

// quit is Ctrl-a x.
func (g *guest) quit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop(syscall.SIGINT)
}

// stop ends the guest without asking it. mu is held.
func (g *guest) stop(s syscall.Signal) {
	if g.sig == 0 {
		g.sig = s
	}
	if g.kill != nil {
		g.kill()
	}
}

func (g *guest) sendBreak() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.machine != nil {
		g.machine.SendBreak()
	}
}

func (g *guest) stoppedBy() syscall.Signal {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sig
}

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"vmm/boot"
	"vmm/console"
	"vmm/logline"
	"vmm/machine"
	"vmm/roster"
	"vmm/service"
)

// runOptions holds the flags of 'vmm run'.
type runOptions struct {
	config      machine.Config
	memory      size
	disks       disks
	nets        nets
	vsock       vsock
	publish     publish
	volumes     volumes
	rng         bool
	balloon     balloon
	console     string
	ports       consolePorts
	serial      string
	onReboot    string
	restart     restart
	detach      bool
	remove      bool
	logLevel    string
	logFormat   logFormat
	stopTimeout time.Duration
	cache       string
	cpuinfo     string // path

	named bool       // by the user
	log   *logTarget // where the log goes

	consoles consoles // those that are open
}

const runExamples = `  # A shell in the guest; Ctrl-a x leaves, Ctrl-a ? helps
  vmm run --kernel bzImage --initrd initrd.cpio

  # From a script: the guest's console is standard input and output
  echo 'uname -a' | vmm run --kernel bzImage --initrd initrd.cpio

  # Two vCPUs, two initrds, one more word on the kernel's command line
  vmm run -k bzImage --initrd initrd.cpio --initrd modules.cpio -c 2 -m 2G --append debug

  # A distribution from its disk, with a second disk that it can only read
  vmm run -k vmlinuz --initrd initrd.img --disk debian.img --disk data.img,ro -a 'root=/dev/vda rw' -m 1G

  # The directory src of this host as /mnt, and another that it can only read
  vmm run -k bzImage --initrd initrd.cpio -v src:/mnt -v /usr/share/dict:/dict:ro

  # ssh into the guest by port 2222 of this host
  vmm run -k vmlinuz --initrd initrd.img --disk debian.img -a 'root=/dev/vda rw' -p 2222:22

  # In the background; then vmm ps, vmm console web, vmm stop web
  vmm run -d --name web -k bzImage --initrd initrd.cpio

  # The console on a socket; connect with: socat - UNIX:guest.sock
  vmm run -k bzImage --initrd initrd.cpio --serial unix:guest.sock`

func (p *program) newRun() *cobra.Command {
	o := &runOptions{memory: 512 << 20, logFormat: logAuto, cpuinfo: p.cpuinfo}
	o.config.KVMDevice = p.kvm
	cmd := &cobra.Command{
		Use:     "run --kernel FILE [flags]",
		Short:   "Run a guest",
		Long:    "Run a Linux kernel in a new virtual machine until it powers off. The exit status says how it ended: see 'vmm help exit-status'.",
		Example: runExamples,
		Args:    runArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error { return o.complete(cmd.ErrOrStderr()) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.detach && !detached() {
				return p.detach(cmd, o.logFormat)
			}
			return o.run(cmd, p.runtimeDir)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	c := &o.config
	f.StringVarP(&c.Kernel, "kernel", "k", "", "kernel: a bzImage or an ELF vmlinux")
	f.StringArrayVar(&c.Initrds, "initrd", nil, "initrd; several are loaded one behind the other")
	f.StringVar(&c.Cmdline, "cmdline", "", "the kernel's command line, in place of the default: "+machine.DefaultCmdline+" tsc_early_khz=...")
	f.StringArrayVarP(&c.Append, "append", "a", nil, "add to the kernel's command line")
	f.IntVarP(&c.CPUs, "cpus", "c", 1, "number of vCPUs")
	f.VarP(&o.memory, "memory", "m", "memory, with its unit: 512M, 2G")
	f.Var(&o.disks, "disk", "disk: PATH[,ro][,direct=on][,serial=TEXT][,queues=N], a raw image or a block device; may be given several times")
	f.Var(&o.nets, "net", "network card: user, tap=NAME or none, then options: ,mac=ADDRESS ,pcap=FILE ,rate=10M ...; may be given several times")
	f.Var(&o.vsock, "vsock", "streams between guest and host (virtio-vsock): PATH[,cid=N] of the Unix socket to call the guest; its calls to port N go to PATH_N")
	f.VarP(&o.publish, "publish", "p", "forward a port of this host to the guest: [ADDRESS:]HOST:GUEST[/udp]; may be given several times")
	f.VarP(&o.volumes, "volume", "v", "share a directory of this host: HOST:GUEST[:ro], then options: ,rate=10M ,size=1G ,owner=UID ...; may be given several times")
	f.Var(transport{&c.Transport}, "transport", "how the guest finds its virtio devices: pci, mmio or mmio-cmdline")
	f.BoolVar(&o.rng, "rng", true, "give the guest random numbers of the host (virtio-rng); --rng=false gives none")
	f.BoolVar(&c.Nested, "nested", false, "let the guest run guests of its own, where this host's KVM can (VMX or SVM)")
	f.Var(&o.balloon, "balloon", "memory that the guest leaves to the host at first (64M), or off for no virtio balloon")
	f.StringVar(&o.serial, "serial", "stdio", "the host's end of the guest's console: stdio, none, file:PATH, unix:PATH or pty")
	f.StringVar(&o.console, "console", "serial", "the guest's console: serial (ttyS0), or virtio (hvc0), which follows the terminal's size")
	f.Var(&o.ports, "console-port", "a stream between guest and host: NAME=unix:PATH, =file:PATH or =pty is /dev/virtio-ports/NAME; may be given several times")
	f.Var(&c.Boot, "boot", "how to start the kernel: auto, direct, bzimage or pvh")
	f.StringVar(&o.onReboot, "on-reboot", "exit", "when the guest resets: exit or restart")
	f.Var(&o.restart, "restart", "when to start a guest again that has ended: no, on-failure, on-failure:N or always")
	f.StringVar(&c.Name, "name", "", "name of the guest, by which the other commands know it (default: vmm and the process id)")
	f.BoolP("interactive", "i", false, "accepted as docker's: a guest that starts from a kernel has its console on standard input anyway")
	f.BoolP("tty", "t", false, "accepted as docker's: a guest that starts from a kernel has a terminal anyway")
	f.BoolVarP(&o.detach, "detach", "d", false, "run in the background, and print the name; what has ended is kept until 'vmm rm'")
	f.BoolVar(&o.remove, "rm", false, "keep nothing of a guest that has ended; without --detach nothing is kept anyway")
	f.StringVar(&o.logLevel, "log-level", "warn", "what to log to standard error: debug, info, warn or error")
	f.Var(&o.logFormat, "log-format", "how to log: plain, a line for a person; text, key=value; json; or auto: plain at a terminal, else text")
	f.DurationVar(&o.stopTimeout, "stop-timeout", 30*time.Second, "how long a guest may take to power off after SIGINT or SIGTERM")
	f.StringVar(&o.cache, "kernel-cache", defaultCache(), "directory of unpacked kernels; empty for none")
	f.BoolVar(&c.CopyKernel, "copy-kernel", false, "read the cached kernel in place of mapping it: a later start, a faster guest, more memory")
	completeFlags(cmd)
	return cmd
}

// completeFlags lets shells complete the flags that have few values.
func completeFlags(cmd *cobra.Command) {
	for flag, values := range map[string][]string{
		"boot":       {"auto", "direct", "bzimage", "pvh"},
		"transport":  {"pci", "mmio", "mmio-cmdline"},
		"console":    {"serial", "virtio"},
		"on-reboot":  {"exit", "restart"},
		"restart":    {"no", "on-failure", "always"},
		"log-level":  {"debug", "info", "warn", "error"},
		"log-format": logFormats,
	} {
		cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	cmd.RegisterFlagCompletionFunc("serial", cobra.FixedCompletions([]string{"stdio", "none", "file:", "unix:", "pty"}, cobra.ShellCompDirectiveNoSpace))
}

// defaultCache is where unpacked kernels are kept, or "" if the user has no such place.
func defaultCache() string {
	dir, _ := boot.CacheDir()
	return dir
}

// complete checks the flags against each other and completes the Config.
func (o *runOptions) complete(stderr io.Writer) error {
	var level slog.Level
	bad := func(format string, args ...any) error { return &statusError{exitUsage, fmt.Errorf(format, args...)} }
	switch {
	case o.onReboot != "exit" && o.onReboot != "restart":
		return bad("--on-reboot %q: must be exit or restart", o.onReboot)
	case o.stopTimeout < 0:
		return bad("--stop-timeout %v: must not be negative", o.stopTimeout)
	case level.UnmarshalText([]byte(o.logLevel)) != nil:
		return bad("--log-level %q: must be debug, info, warn or error", o.logLevel)
	}
	c := &o.config
	if o.named = c.Name != ""; !o.named {
		c.Name = fmt.Sprintf("vmm-%d", os.Getpid())
	} else if err := roster.CheckName(c.Name); err != nil {
		return bad("--name: %w", err)
	}
	if o.detach {
		if o.serial == "stdio" {
			o.serial = "none" // the log and 'vmm console' replace it
		}
	}
	o.log = newLogTarget(stderr, o.logFormat.at(stderr), level)
	c.Memory, c.Disks, c.Shares, c.NoRNG = uint64(o.memory), o.disks, o.volumes, !o.rng
	var err error
	c.Vsock = o.vsock.config
	if c.Nets, err = o.nets.complete(o.publish); err != nil {
		return bad("%w", err)
	}
	c.Console, c.Ports = machine.ConsoleKind(o.console), o.ports.config()
	c.Balloon, c.NoBalloon = uint64(o.balloon.size), o.balloon.off
	c.KernelCache = o.cache
	c.Log = slog.New(o.log).With("guest", c.Name)
	if err := c.Validate(); err != nil {
		return errorStatus(flagName(err))
	}
	return nil
}

func (o *runOptions) run(cmd *cobra.Command, runtimeDir string) error {
	standInBackground()
	files, err := o.hold(runtimeDir)
	if err != nil {
		return errorStatus(flagName(err))
	}
	defer files.Close()
	o.config.Files = files
	g := &foreground{timeout: o.stopTimeout}
	con, err := console.Open(o.serial, console.Options{Quit: g.quit, Break: g.sendBreak, Full: o.outputLost(), Owner: g.panicked})
	if err != nil {
		return serialStatus(o.serial, err)
	}
	defer con.Close()
	g.con.Store(con)
	if o.serial == "pty" {
		fmt.Fprintf(cmd.ErrOrStderr(), "vmm: the guest's serial port is %s\n", con.Name())
	}
	closeConsoles, err := o.openConsoles(con, g.panicked, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer closeConsoles()
	options := service.Options{
		Keep:        o.detach && !o.remove,
		Policy:      o.restart.Policy,
		StopTimeout: o.stopTimeout,
		Status:      exitStatus,
		Owner:       g.panicked,
	}
	options.Policy.Reboot = o.onReboot == "restart"
	if !con.None() {
		options.Input, options.Output = con, con
	}
	guest, err := o.register(options, runtimeDir)
	if err != nil {
		return err
	}
	defer guest.Close()
	g.guest.Store(guest)
	defer g.handleSignals()()
	o.warn()
	end := guest.Run(cmd.Context(), o.started(guest))
	if end.Err != nil {
		return errorStatus(flagName(end.Err))
	}
	return &statusError{exitStatus(end), endError(end.End)}
}

// outputLost returns the function to call when there is no room for the guest's output.
func (o *runOptions) outputLost() func(error) {
	line := logline.New(o.config.Log, time.Minute)
	return func(err error) { line.Warn("what the guest prints is lost until there is room again", "err", err) }
}

// register gives the guest its name. A guest in the foreground that the user has not
// named runs without one if the host has no place for it.
func (o *runOptions) register(options service.Options, runtimeDir string) (*service.Guest, error) {
	r, err := roster.Create(runtimeDir)
	if err == nil {
		options.Roster = r
		var g *service.Guest
		if g, err = service.New(o.config, options); err == nil {
			return g, nil
		}
	}
	var taken *roster.InUseError
	if o.named || o.detach {
		if errors.As(err, &taken) {
			return nil, &statusError{exitUsage, fmt.Errorf("--name: %w", err)}
		}
		return nil, &statusError{exitHost, err}
	}
	o.config.Log.Info("this guest has no name: other commands do not find it", "err", err)
	options.Roster = nil
	return service.New(o.config, options)
}

// warn reports a host on which a kernel will not get far.
func (o *runOptions) warn() {
	if flag, err := machine.HardwareFlag(o.cpuinfo); err == nil && flag == "" {
		o.config.Log.Warn(machine.InterpretedWarning)
	}
}

// serialStatus distinguishes a wrong spec from a host that refuses.
func serialStatus(spec string, err error) error {
	kind, path, _ := strings.Cut(spec, ":")
	switch {
	case path == "" && kind != "stdio" && kind != "pty", kind != "file" && kind != "unix" && path != "":
		return &statusError{exitUsage, fmt.Errorf("--serial: %w", err)}
	case errors.As(err, new(syscall.Errno)):
		err = fmt.Errorf("%w; choose another", err)
	}
	return &statusError{exitHost, fmt.Errorf("--serial: %w", err)}
}

package machine

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"vmm/boot"
)

// DefaultCmdline suits a serial console and this machine's devices: a kernel
// that panics resets, which ends the machine, rather than hang. The machine adds
// tsc_early_khz, without which a kernel that has no kvmclock must measure the
// time-stamp counter, and gives up where exits are slow.
const DefaultCmdline = "console=ttyS0 panic=-1"

// VirtioCmdline is DefaultCmdline for a virtio console. The kernel's last console
// is the one that programs have; until its driver is there, which is a module
// mostly, there is the other. By then systemd has looked where to have a login,
// so it is told (systemd-debug-generator(8)); nobody else minds.
const VirtioCmdline = "console=ttyS0 console=hvc0 panic=-1 systemd.wants=serial-getty@hvc0.service"

// Bounds of a Config.
const (
	MinMemory = 16 << 20
	MaxMemory = 1 << 40
	MaxCPUs   = 254 // local APIC ids that need no interrupt remapping
)

// Config is all that can be chosen about a machine. Its JSON is what leaves the
// process: what is bound to it (Console, Log) does not.
type Config struct {
	Name    string    `json:",omitempty"`
	Kernel  string    // path of a bzImage or an ELF vmlinux
	Initrds []string  `json:",omitempty"` // paths; loaded one behind the other
	Cmdline string    `json:",omitempty"` // of the kernel; "" is DefaultCmdline
	Append  []string  `json:",omitempty"` // words to add to it
	Boot    boot.Mode `json:",omitempty"` // "" is boot.Auto
	CPUs    int
	Memory  uint64 // bytes, a multiple of the page size

	// KernelCache is the directory of unpacked kernels; "" keeps none.
	KernelCache string `json:",omitempty"`
	// CopyKernel reads the cached kernel in place of mapping it: the guest has
	// huge pages under it and faults nothing in, for some milliseconds before it
	// starts and memory that guests do not share.
	CopyKernel bool `json:",omitempty"`

	Disks     []Disk    `json:",omitempty"` // /dev/vda and so on
	Nets      []Net     `json:",omitempty"` // eth0 and so on
	Vsock     *Vsock    `json:",omitempty"` // nil: none
	Shares    []Share   `json:",omitempty"` // directories of the host
	NoRNG     bool      `json:",omitempty"` // no virtio entropy device
	Balloon   uint64    `json:",omitempty"` // bytes that the guest leaves to the host from its start on
	NoBalloon bool      `json:",omitempty"` // no virtio balloon: no free page reports either
	Transport Transport `json:",omitempty"` // of virtio devices; "" is PCI

	Console ConsoleKind `json:",omitempty"` // "" is ConsoleSerial
	Ports   []Port      `json:",omitempty"` // /dev/virtio-ports/NAME

	// Nested lets the guest run guests of its own, where KVM can: it finds VMX or SVM
	// in CPUID. That is more of the host's kernel for a hostile guest to try.
	Nested bool `json:",omitempty"`

	// Files are what the paths lead to, if a machine of the same guest was there
	// before; nil has New resolve them.
	Files *Files `json:"-"`

	// KVMDevice is the path of the KVM device; "" is the constant of that name.
	KVMDevice string `json:"-"`

	// ConsoleIn and ConsoleOut are the far end of the console; nil is not connected.
	// They are the caller's to close, after Machine.Close.
	ConsoleIn  io.Reader `json:"-"`
	ConsoleOut io.Writer `json:"-"`
	// ConsoleSize is that of a terminal there; nil is not known. A serial port
	// cannot tell the guest.
	ConsoleSize *TerminalSize `json:"-"`

	// Log receives what an operator should know; nil discards it.
	Log *slog.Logger `json:"-"`
}

// ConfigError says which field of a Config is wrong.
type ConfigError struct {
	Field string // as in Config
	Why   string
}

func (e *ConfigError) Error() string { return fmt.Sprintf("%s: %s", e.Field, e.Why) }

// Validate returns a *ConfigError if no host could run c. What this host cannot
// do, New finds.
func (c *Config) Validate() error {
	bad := func(field, why string, args ...any) error {
		return &ConfigError{field, fmt.Sprintf(why, args...)}
	}
	switch {
	case c.Kernel == "":
		return bad("Kernel", "none given; it takes the path of a bzImage or vmlinux")
	case c.CPUs < 1:
		return bad("CPUs", "%d; a machine has at least 1", c.CPUs)
	case c.CPUs > MaxCPUs:
		return bad("CPUs", "%d; at most %d", c.CPUs, MaxCPUs)
	case c.Memory < MinMemory:
		return bad("Memory", "%d bytes; a machine has at least %dM", c.Memory, MinMemory>>20)
	case c.Memory > MaxMemory:
		return bad("Memory", "%d GiB; at most %d GiB", c.Memory>>30, uint64(MaxMemory)>>30)
	case c.Memory%4096 != 0:
		return bad("Memory", "%d bytes; it comes in pages of 4096", c.Memory)
	case len(c.Disks) > MaxDisks:
		return bad("Disks", "%d; at most %d", len(c.Disks), MaxDisks)
	case len(c.Nets) > MaxNets:
		return bad("Nets", "%d; at most %d", len(c.Nets), MaxNets)
	}
	switch c.Transport {
	case "", PCI, MMIO, MMIOCmdline:
	default:
		return bad("Transport", "%q; must be pci, mmio or mmio-cmdline", c.Transport)
	}
	for i := range c.Disks {
		if err := c.Disks[i].validate(); err != nil {
			return &ConfigError{"Disks", err.Error()}
		}
	}
	for i := range c.Nets {
		if err := c.Nets[i].validate(); err != nil {
			return &ConfigError{"Nets", err.Error()}
		}
	}
	for _, validate := range []func() error{c.validateConsole, c.validateBalloon} {
		if err := validate(); err != nil {
			return err
		}
	}
	if err := c.validateShares(); err != nil {
		return err
	}
	return c.validateVsock()
}

// cmdline returns the kernel's command line on a machine with the given
// frequency of the time-stamp counter, 0 if unknown, and with words for devices.
func (c *Config) cmdline(tscKHz uint32, devices []string) string {
	base := c.Cmdline
	if base == "" {
		base = DefaultCmdline
		if c.Console == ConsoleVirtio {
			base = VirtioCmdline
		}
		if tscKHz != 0 {
			base += fmt.Sprintf(" tsc_early_khz=%d", tscKHz)
		}
	}
	return strings.Join(slices.Concat([]string{base}, devices, c.shareWords(), c.Append), " ")
}

package machine

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"vmm/boot"
)

// DefaultCmdline suits a serial console and this machine's devices: a kernel that
// panics resets, which ends the machine, instead of hanging. The machine adds
// tsc_early_khz. Without it, a kernel that has no kvmclock must measure the time-stamp
// counter, and gives up where exits are slow.
const DefaultCmdline = "console=ttyS0 panic=-1"

// VirtioCmdline is DefaultCmdline for a virtio console. The kernel uses the last
// console for /dev/console. Its driver is usually a module; until it is loaded, the
// other console serves. By then systemd has already decided where to start a login, so
// it is told here (systemd-debug-generator(8)); other init systems ignore the word.
const VirtioCmdline = "console=ttyS0 console=hvc0 panic=-1 systemd.wants=serial-getty@hvc0.service"

// Bounds of a Config.
const (
	MinMemory = 16 << 20
	MaxMemory = 1 << 40
	MaxCPUs   = 254 // local APIC IDs that need no interrupt remapping
)

// Config holds every option of a machine. Its JSON is what leaves the process; fields
// bound to the process (Console, Log) are left out.
type Config struct {
	Name    string    `json:",omitempty"`
	Kernel  string    // path of a bzImage or an ELF vmlinux
	Initrds []string  `json:",omitempty"` // paths; loaded one after another
	Cmdline string    `json:",omitempty"` // the kernel's; "" is DefaultCmdline
	Append  []string  `json:",omitempty"` // words to add to it
	Boot    boot.Mode `json:",omitempty"` // "" is boot.Auto
	CPUs    int
	Memory  uint64 // bytes, a multiple of the page size

	// KernelCache is the directory of unpacked kernels; "" keeps none.
	KernelCache string `json:",omitempty"`
	// CopyKernel reads the cached kernel instead of mapping it: the guest gets
	// huge pages for it and takes no page faults on it. This costs some
	// milliseconds before the start, and memory that guests do not share.
	CopyKernel bool `json:",omitempty"`

	Disks     []Disk    `json:",omitempty"` // /dev/vda and so on
	Nets      []Net     `json:",omitempty"` // eth0 and so on
	Vsock     *Vsock    `json:",omitempty"` // nil: none
	Shares    []Share   `json:",omitempty"` // host directories
	NoRNG     bool      `json:",omitempty"` // no virtio entropy device
	Balloon   uint64    `json:",omitempty"` // bytes that the guest gives to the host from the start
	NoBalloon bool      `json:",omitempty"` // no virtio balloon, hence no free page reporting
	Transport Transport `json:",omitempty"` // of virtio devices; "" is PCI

	Console ConsoleKind `json:",omitempty"` // "" is ConsoleSerial
	Ports   []Port      `json:",omitempty"` // /dev/virtio-ports/NAME

	// Nested lets the guest run its own guests, if KVM can: the guest finds VMX or
	// SVM in CPUID. This exposes more of the host's kernel to a hostile guest.
	Nested bool `json:",omitempty"`

	// Files holds the resolved paths if an earlier machine of the same guest
	// existed; nil makes New resolve them.
	Files *Files `json:"-"`

	// KVMDevice is the path of the KVM device; "" is the constant KVMDevice.
	KVMDevice string `json:"-"`

	// ConsoleIn and ConsoleOut are the far end of the console; nil is not
	// connected. The caller closes them, after Machine.Close.
	ConsoleIn  io.Reader `json:"-"`
	ConsoleOut io.Writer `json:"-"`
	// ConsoleSize is the size of the terminal there; nil is unknown. A serial port
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

// Validate returns a *ConfigError if no host could run c. New finds what this host
// cannot do.
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

// cmdline returns the kernel's command line, given the TSC frequency (0 if unknown)
// and the words for devices.
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

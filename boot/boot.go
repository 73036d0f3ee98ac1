// Package boot loads a Linux kernel, its initrds, its command line and its boot
// structures into a guest's memory, and returns the state in which the first vCPU must
// start. It follows the Linux/x86 boot protocol (the kernel's
// Documentation/x86/boot.rst and zero-page.rst) and Xen's PVH protocol
// (docs/misc/pvh.pandoc). It deals only with memory, not with vCPUs.
package boot

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"vmm/hostfile"
	"vmm/mem"
)

// A Mode is a way to boot a kernel. Its zero value is Auto; *Mode is a value for flag
// and pflag, and has a text form for JSON.
type Mode string

const (
	Auto    Mode = "auto"    // Direct, or another mode that the kernel allows
	Direct  Mode = "direct"  // unpack the kernel here and enter it in 64-bit mode
	BzImage Mode = "bzimage" // let the kernel unpack itself
	PVH     Mode = "pvh"     // the ELF kernel's 32-bit entry for Xen-style loaders
)

// Set parses s.
func (m *Mode) Set(s string) error {
	switch v := Mode(strings.ToLower(s)); v {
	case Auto, Direct, BzImage, PVH:
		*m = v
		return nil
	case "":
		*m = Auto
		return nil
	}
	return fmt.Errorf("boot mode %q: must be auto, direct, bzimage or pvh", s)
}

// String returns the mode's name.
func (m Mode) String() string {
	if m == "" {
		return string(Auto)
	}
	return string(m)
}

// Type is the name of the value type in pflag's usage text.
func (m *Mode) Type() string { return "mode" }

// UnmarshalText is Set for JSON.
func (m *Mode) UnmarshalText(text []byte) error { return m.Set(string(text)) }

// Params describes what to boot.
type Params struct {
	Kernel   string        // path of a bzImage or an ELF
	Initrds  []string      // paths; the guest sees them one after another
	Cmdline  string        // the kernel's command line, without a final NUL
	Mode     Mode          // how to start it
	RSDP     mem.Addr      // of the ACPI tables already in memory, or 0
	Reserved []mem.Range   // not for the kernel: reserved in its memory map, whether RAM or not
	Cache    *Cache        // of unpacked kernels, or nil
	Held     *hostfile.Set // holds the files by path; nil resolves the paths now
	Log      *slog.Logger
}

// An Entry is the state in which the first vCPU starts, and what Load did. All
// registers not listed are zero, except RFLAGS, whose bit 1 is always set. DS also
// stands for ES and SS.
type Entry struct {
	IP, BX, SI          uint64
	CR0, CR3, CR4, EFER uint64
	CS, DS, TR          Segment
	GDT                 uint64 // guest physical address
	GDTLimit            uint16 // size in bytes, minus 1

	Mode    Mode          // never Auto
	Release string        // the kernel's version, if a bzImage names it
	Cached  bool          // the unpacked kernel came from the cache
	Took    time.Duration // duration of Load

	finish func(keep bool) error // finishes, or with keep false only frees
}

// InputError reports, in one line, an unusable kernel, initrd or command line: the
// user must fix it, the host is not at fault.
type InputError struct {
	What string // "kernel", "initrd", "command line"
	Path string // or ""
	Err  error
}

func (e *InputError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s: %v", e.What, e.Err)
	}
	return fmt.Sprintf("%s %s: %v", e.What, e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }

// errUnsupported marks a bzImage that may start, but only by unpacking itself.
var errUnsupported = errors.New("only mode bzimage can start it")

// Finish does work that can wait until the guest runs: it updates the cache and frees
// the memory used for that. The caller calls it once after every successful Load, on
// any goroutine; it may take a second. Its error should be logged but should not end
// the guest.
func (e *Entry) Finish() error { return e.end(true) }

func (e *Entry) end(keep bool) error {
	f := e.finish
	e.finish = nil
	if f == nil {
		return nil
	}
	return f(keep)
}

// loader is one call of Load.
type loader struct {
	Params
	mem       *mem.Memory
	kernel    *file
	initrds   []*file
	setup     setup       // the kernel's, or a substitute
	isBzImage bool        // otherwise an ELF
	ram       []mem.Range // usable by the kernel
	memmap    []mapEntry
	end       mem.Addr  // address after the kernel
	initrd    mem.Range // all initrds; Size 0 if there is none
	entry     *Entry
}

// Load loads the kernel and everything it needs into m, which must be fresh: all zero
// except p.Reserved. An error in a file or in the command line is an *InputError.
func Load(m *mem.Memory, p Params) (*Entry, error) {
	start := time.Now()
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	if err := p.Mode.Set(string(p.Mode)); err != nil {
		return nil, err
	}
	l := &loader{Params: p, mem: m, entry: &Entry{}}
	defer l.close()
	for _, step := range []func() error{
		l.layOut, l.open, l.checkCmdline, l.loadKernel, l.loadInitrds, l.writeStructures,
	} {
		if err := step(); err != nil {
			l.entry.end(false)
			return nil, err
		}
	}
	e := l.entry
	e.Took = time.Since(start)
	l.Log.Info("kernel loaded", "path", p.Kernel, "release", e.Release, "mode", e.Mode, "cached", e.Cached, "took", e.Took)
	return e, nil
}

func (l *loader) close() {
	for _, f := range append(l.initrds, l.kernel) {
		if f != nil {
			f.Close()
		}
	}
}

// layOut determines which memory the kernel may use.
func (l *loader) layOut() (err error) {
	l.ram = usable(l.mem, l.Reserved)
	if !holds(l.ram, gdtBase, uint64(lowEnd-gdtBase)) {
		return fmt.Errorf("guest memory: no free RAM in %#x-%#x, where the boot structures go", gdtBase, lowEnd)
	}
	l.memmap, err = memoryMap(l.ram, l.Reserved)
	return err
}

// open opens every file first, so that errors show early.
func (l *loader) open() (err error) {
	if l.kernel, err = openFile(l.Held, "kernel", l.Kernel); err != nil {
		return err
	}
	for _, path := range l.Initrds {
		f, err := openFile(l.Held, "initrd", path)
		if err != nil {
			return err
		}
		l.initrds = append(l.initrds, f)
	}
	head, err := l.kernel.head()
	if err != nil {
		return err
	}
	switch {
	case isELF(head):
		l.setup = modern()
	case isBzImage(head):
		l.setup, l.isBzImage = head, true
		if err := l.setup.check(l.kernel.size); err != nil {
			return l.kernel.bad(err)
		}
	default:
		return l.kernel.bad(notKernel(head))
	}
	return nil
}

func (l *loader) checkCmdline() error {
	limit := int(min(l.setup.u32(cmdlineSize), uint32(lowEnd-cmdlineBase)-1))
	switch n := len(l.Cmdline); {
	case n > limit:
		return &InputError{"command line", "", fmt.Errorf("%d bytes, this kernel takes %d: shorten it", n, limit)}
	case strings.IndexByte(l.Cmdline, 0) >= 0:
		return &InputError{"command line", "", errors.New("has a NUL byte: remove it")}
	}
	return nil
}

// writeStructures writes the boot structures below 1 MiB and completes the entry.
func (l *loader) writeStructures() error {
	e := l.entry
	if err := l.mem.Write(cmdlineBase, append([]byte(l.Cmdline), 0)); err != nil {
		return err
	}
	if e.Mode == PVH {
		e.BX = uint64(startInfoBase)
		e.protected()
		if err := l.writeStartInfo(); err != nil {
			return err
		}
		return e.writeGDT(l.mem)
	}
	z := l.setup.zeroPage(l)
	switch e.Mode {
	case Direct:
		// The kernel's own unpacker would set this flag. Without it Linux does not
		// randomize its memory layout (CONFIG_RANDOMIZE_MEMORY).
		if !hasWord(l.Cmdline, "nokaslr") {
			z[loadFlags] |= kaslrFlag
		}
	case BzImage:
		z.put32(code32Start, uint32(e.IP-entry64))
	}
	seed, err := writeSeed(l.mem)
	if err != nil {
		return err
	}
	z.put64(setupData, uint64(seed))
	e.SI = uint64(zeroPageBase)
	e.long()
	if err := l.mem.Write(zeroPageBase, z); err != nil {
		return err
	}
	if err := writePageTables(l.mem); err != nil {
		return err
	}
	return e.writeGDT(l.mem)
}

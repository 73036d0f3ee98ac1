// Package boot puts a Linux kernel, its initrds, its command line and the
// structures that it starts from into a guest's memory, and says how the first
// vCPU must start. It follows the Linux/x86 boot protocol (the kernel's
// Documentation/x86/boot.rst and zero-page.rst) and the PVH one of Xen
// (docs/misc/pvh.pandoc). It knows memory only, no vCPU.
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

// A Mode is a way to start a kernel. Its zero value is Auto; *Mode is a value
// for flag and pflag, and has a text form for JSON.
type Mode string

const (
	Auto    Mode = "auto"    // Direct, or what else the kernel allows
	Direct  Mode = "direct"  // unpack the kernel here, enter it in 64-bit mode
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

// Type is what pflag calls the value in its usage text.
func (m *Mode) Type() string { return "mode" }

// UnmarshalText is Set for JSON.
func (m *Mode) UnmarshalText(text []byte) error { return m.Set(string(text)) }

// Params is what to start.
type Params struct {
	Kernel   string        // path of a bzImage or an ELF
	Initrds  []string      // paths; the guest sees them one after another
	Cmdline  string        // the kernel's command line, without a final NUL
	Mode     Mode          // how to start it
	RSDP     mem.Addr      // of ACPI tables that are in memory already, or 0
	Reserved []mem.Range   // not for the kernel: reserved in its memory map, in RAM or out of it
	Cache    *Cache        // of unpacked kernels, or nil
	Held     *hostfile.Set // has the files under their paths; nil resolves those
	Log      *slog.Logger
}

// An Entry is the state that the first vCPU starts in, and what was done. All
// registers that it does not name are zero, but for RFLAGS, whose bit 1 is
// always set. DS stands for ES and SS too.
type Entry struct {
	IP, BX, SI          uint64
	CR0, CR3, CR4, EFER uint64
	CS, DS, TR          Segment
	GDT                 uint64 // guest physical address
	GDTLimit            uint16 // size in bytes, less 1

	Mode    Mode          // never Auto
	Release string        // the kernel's version, if a bzImage told
	Cached  bool          // the unpacked kernel came from the cache
	Took    time.Duration // of Load

	finish func(keep bool) error // what Finish does, or only frees
}

// InputError reports a kernel, initrd or command line that cannot be used, in
// one line: the user's to repair, not the host's fault.
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

// errUnsupported marks a bzImage that may well start, but not from here.
var errUnsupported = errors.New("only mode bzimage can start it")

// Finish does what can wait until the guest runs: it brings the cache up to
// date and frees what that took. The caller calls it once after every Load that
// succeeded, on any goroutine; it may take a second. Its error is a reason for a
// log line, not for an end.
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
	setup     setup       // of the kernel, or what stands for it
	isBzImage bool        // else an ELF
	ram       []mem.Range // usable by the kernel
	memmap    []mapEntry
	end       mem.Addr  // behind the kernel
	initrd    mem.Range // of all initrds; Size 0 if there is none
	entry     *Entry
}

// Load puts the kernel and all that it needs into m, which must be fresh: all
// zero but for what is in p.Reserved. What is wrong with a file or with the
// command line is an *InputError.
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

// layOut decides what memory the kernel may have.
func (l *loader) layOut() (err error) {
	l.ram = usable(l.mem, l.Reserved)
	if !holds(l.ram, gdtBase, uint64(lowEnd-gdtBase)) {
		return fmt.Errorf("guest memory: no free RAM in %#x-%#x, where the boot structures go", gdtBase, lowEnd)
	}
	l.memmap, err = memoryMap(l.ram, l.Reserved)
	return err
}

// open opens every file first: what can fail at once shall not fail late.
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

// writeStructures fills the memory below 1 MiB and completes the entry.
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
		// The kernel's own unpacker would say so; without it Linux does not
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

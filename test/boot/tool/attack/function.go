package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Registers of configuration space, PCI 3.0 §6.1.
const (
	cfgCommand      = 0x04
	cfgBAR          = 0x10
	cfgCapabilities = 0x34

	commandMemory = 2
	commandMaster = 4
)

// function is a PCI function's configuration space, through sysfs.
type function struct {
	dir   string
	space *os.File
}

func openFunction(dir string) (*function, error) {
	f, err := os.OpenFile(filepath.Join(dir, "config"), os.O_RDWR, 0)
	return &function{dir, f}, err
}

// read and write make one access of 1, 2 or 4 bytes, if off is aligned to that.
func (f *function) read(off, width int) uint32 {
	var b [4]byte
	f.space.ReadAt(b[:width], int64(off))
	return le.Uint32(b[:])
}

func (f *function) write(off, width int, v uint32) {
	f.space.WriteAt(le.AppendUint32(nil, v)[:width], int64(off))
}

// devfn returns the number of the function on its bus.
func (f *function) devfn() uint64 {
	var domain, bus, dev, fn uint64
	fmt.Sscanf(filepath.Base(f.dir), "%x:%x:%x.%x", &domain, &bus, &dev, &fn)
	return dev<<3 | fn
}

// A capability is one element of the capability list, §6.7.
type capability struct {
	at   int
	kind byte // ID
	body []byte
}

func (f *function) capabilities() (all []capability) {
	for at := int(f.read(cfgCapabilities, 1)); at >= 0x40 && len(all) < 48; {
		c := capability{at: at, kind: byte(f.read(at, 1)), body: make([]byte, 24)}
		f.space.ReadAt(c.body, int64(at))
		all = append(all, c)
		at = int(c.body[1])
	}
	return all
}

// bar returns the address in a base address register.
func (f *function) bar(i int) uint64 {
	v := uint64(f.read(cfgBAR+4*i, 4))
	if v&1 != 0 { // ports
		return v &^ 3
	}
	addr := v &^ 0xf
	if v&6 == 4 {
		addr |= uint64(f.read(cfgBAR+4*i+4, 4)) << 32
	}
	return addr
}

// move writes a base address register, the upper half first.
func (f *function) move(i int, addr uint64) {
	if f.read(cfgBAR+4*i, 4)&6 == 4 {
		f.write(cfgBAR+4*i+4, 4, uint32(addr>>32))
	}
	f.write(cfgBAR+4*i, 4, uint32(addr))
}

func (f *function) setCommand(v uint32) { f.write(cfgCommand, 2, v) }

// A saved is the part of configuration space that is restored after a case.
type saved [16]uint32

func (f *function) save() (s saved) {
	for i := range s {
		s[i] = f.read(4*i, 4)
	}
	return s
}

// restore restores everything: decoding off, the addresses, then the command.
func (f *function) restore(s saved) {
	f.setCommand(0)
	for _, i := range []int{3, 4, 5, 6, 7, 8, 9, 15} { // the writable registers
		f.write(4*i, 4, s[i])
	}
	f.setCommand(s[1] & 0xffff)
}

// neighbours returns the other PCI functions.
func (f *function) neighbours() (all []*function) {
	dirs, _ := filepath.Glob("/sys/bus/pci/devices/*")
	for _, d := range dirs {
		if strings.HasSuffix(f.dir, filepath.Base(d)) {
			continue
		}
		if g, err := openFunction(d); err == nil {
			all = append(all, g)
		}
	}
	return all
}

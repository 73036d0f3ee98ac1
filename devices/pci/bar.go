package pci

import (
	"fmt"

	"vmm/bus"
)

// Bits of a base address register, §6.2.5.1.
const (
	barPorts = 1 << 0

	// For memory BARs.
	barType64       = 2 << 1
	barPrefetchable = 1 << 3
)

// A bar is a base address register, or two for a 64-bit one, and what it maps. Size
// 0: none, or the upper half of the previous one.
//
// A guest may put BARs on top of something else: RAM, a fixed device or port, another
// BAR. Nothing outside the bridge's windows answers. Inside, the first BAR to claim
// an address keeps it. A later one does not answer until its address changes or some
// BAR goes away. If several wait for a place, the one in the lowest slot and register
// gets it.
type bar struct {
	BAR
	ours bool // of MSI-X: the device is not told

	// Guarded by Bus.mu.
	addr   uint64 // where it should answer,
	wanted bool   // if decoding is on and addr is in a window,
	mapped bool   // and if no other BAR does
}

// addBAR makes r register i, and the next if r is 64 bits wide. The address bits
// below the size are fixed at 0, which tells the guest the size.
func (f *Function) addBAR(i int, r bar) {
	last := i
	if r.Is64 {
		last++
	}
	switch {
	case !r.valid():
		panic(fmt.Sprintf("internal error: pci: BAR %d has size %#x", i, r.Size))
	case last >= len(f.bars) || f.bars[i].Size != 0 || i > 0 && f.bars[i-1].Is64:
		panic(fmt.Sprintf("internal error: pci: no register for BAR %d", i))
	}
	f.bars[i] = r
	at := regBAR + 4*i
	mask := ^(r.Size - 1)
	le.PutUint32(f.writable[at:], uint32(mask))
	f.initial[at] = r.flags()
	if r.Is64 {
		le.PutUint32(f.writable[at+4:], uint32(mask>>32))
	}
	f.writable[regCommand] |= byte(r.enable())
}

// valid reports whether a BAR can have this size, §6.2.5.1.
func (r BAR) valid() bool {
	least, most := uint64(16), uint64(1<<31)
	switch {
	case r.Ports:
		least, most = 4, 256
	case r.Is64:
		most = 1 << 63
	}
	return r.Size >= least && r.Size <= most && r.Size&(r.Size-1) == 0 && r.Device != nil &&
		!(r.Ports && (r.Is64 || r.Prefetchable))
}

// flags returns the bits that are not part of the address.
func (r BAR) flags() (flags byte) {
	if r.Ports {
		return barPorts
	}
	if r.Is64 {
		flags |= barType64
	}
	if r.Prefetchable {
		flags |= barPrefetchable
	}
	return flags
}

// enable returns the Command bit that makes the BAR answer.
func (r BAR) enable() uint16 {
	if r.Ports {
		return commandIO
	}
	return commandMemory
}

// freeBAR returns the first register after those of the device.
func (f *Function) freeBAR() int {
	for i := len(f.bars); i > 0; i-- {
		if f.bars[i-1].Size != 0 {
			if f.bars[i-1].Is64 {
				return i + 1
			}
			return i
		}
	}
	return 0
}

// decoded returns the address of BAR i according to the registers, and whether it
// decodes at all.
func (f *Function) decoded(i int) (addr uint64, on bool) {
	at, r := regBAR+4*i, &f.bars[i]
	addr = uint64(le.Uint32(f.config[at:]) &^ uint32(r.flags()))
	if r.Is64 {
		addr |= uint64(le.Uint32(f.config[at+4:])) << 32
	}
	return addr, f.command()&r.enable() != 0
}

// space returns the bus on which a BAR answers.
func (b *Bus) space(r BAR) *bus.Bus {
	if r.Ports {
		return b.ports
	}
	return b.memory
}

// decode moves the BARs of f to where their registers say.
func (b *Bus) decode(f *Function) {
	changed, freed := b.want(f)
	switch {
	case freed:
		b.claimAll()
	case changed:
		b.claim(f, all)
	}
}

// want records where the BARs of f should be, and unmaps those that are elsewhere.
func (b *Bus) want(f *Function) (changed, freed bool) {
	for i := range f.bars {
		r := &f.bars[i]
		if r.Size == 0 {
			continue
		}
		addr, on := f.decoded(i)
		on = on && b.contains(addr, r.Size, r.Ports)
		if addr == r.addr && on == r.wanted {
			continue
		}
		freed = b.unmap(f, i) || freed
		r.addr, r.wanted = addr, on
		changed = true
	}
	return changed, freed
}

// all is the set of all BARs, one bit each.
const all = 1<<6 - 1

// claim maps the BARs of f in set for which there is a place.
func (b *Bus) claim(f *Function, set uint8) {
	for i := range f.bars {
		r := &f.bars[i]
		if set>>i&1 == 0 || !r.wanted || r.mapped || b.space(r.BAR).Map(r.addr, r.Size, r.Device) != nil {
			continue
		}
		r.mapped = true
		if !r.ours {
			f.dev.Moved(i, r.addr, true)
		}
	}
}

func (b *Bus) claimAll() {
	for _, f := range b.functions {
		b.claim(f, all)
	}
}

// unmap unmaps BAR i of f if it is mapped.
func (b *Bus) unmap(f *Function, i int) bool {
	r := &f.bars[i]
	if !r.mapped {
		return false
	}
	if err := b.space(r.BAR).Unmap(r.addr); err != nil {
		panic("internal error: pci: " + err.Error())
	}
	r.mapped = false
	if !r.ours {
		f.dev.Moved(i, r.addr, false)
	}
	return true
}

// mapped returns the set of BARs that answer.
func (f *Function) mapped() (set uint8) {
	for i, r := range f.bars {
		if r.mapped {
			set |= 1 << i
		}
	}
	return set
}

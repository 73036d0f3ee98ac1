package boot

import (
	"fmt"

	"vmm/mem"
)

// initrdAlign is the alignment of a cpio archive's members, so that one archive may
// follow another (the kernel's driver-api/early-userspace/buffer-format.rst).
const initrdAlign = 4

// initrdSize returns the total size of all initrds in bytes.
func (l *loader) initrdSize() (n uint64) {
	for _, f := range l.initrds {
		n += alignUp(uint64(f.size), initrdAlign)
	}
	return n
}

// loadInitrds reads the initrds, one after another, to the highest address that the
// kernel allows.
func (l *loader) loadInitrds() error {
	size := l.initrdSize()
	if size == 0 {
		return nil
	}
	from := mem.Addr(alignUp(uint64(l.end), mem.PageSize))
	base, ok := highest(l.ram, from, min(mem.Addr(l.setup.u32(initrdAddrMax))+1, fourGiB), size)
	if !ok && l.anywhere() {
		base, ok = highest(l.ram, from, 1<<52, size)
	}
	if !ok {
		return l.initrds[0].bad(l.noRoom(size))
	}
	l.initrd = mem.Range{Base: base, Size: size}
	b, err := l.mem.Slice(base, size)
	if err != nil {
		return err
	}
	for _, f := range l.initrds {
		if err := f.readFull(b[:f.size], 0); err != nil {
			return err
		}
		b = b[alignUp(uint64(f.size), initrdAlign):]
	}
	return nil
}

// anywhere reports whether the kernel accepts initrds at any address: a kernel that
// accepts them above 4 GiB is not bound by initrd_addr_max either. PVH kernels read
// only 32 bits.
func (l *loader) anywhere() bool {
	return l.entry.Mode != PVH && l.setup.u16(xloadFlags)&above4G != 0
}

// noRoom returns an error that says why size bytes do not fit after the kernel.
func (l *loader) noRoom(size uint64) error {
	need := alignUp(uint64(l.end), mem.PageSize) + size
	if max := uint64(l.setup.u32(initrdAddrMax)); need > max && !l.anywhere() {
		return fmt.Errorf("%d MiB behind the kernel, which takes them below %d MiB only: make it smaller", mib(size), mib(max))
	}
	return fmt.Errorf("needs %d MiB behind the kernel, the guest has %d MiB in all: give it at least %d MiB",
		mib(size), l.mem.Size()>>20, mib(need))
}

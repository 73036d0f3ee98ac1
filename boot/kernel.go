package boot

import (
	"errors"
	"fmt"

	"vmm/mem"
)

// loadKernel loads the kernel into memory; it sets l.end and the entry's IP and Mode.
func (l *loader) loadKernel() error {
	if !l.isBzImage {
		if l.Mode == BzImage {
			return l.kernel.bad(errors.New("an ELF kernel, which cannot unpack itself: take mode direct or pvh"))
		}
		img, err := parseELF(l.kernel, l.kernel.size)
		if err != nil {
			return l.kernel.bad(err)
		}
		return l.loadImage(img)
	}
	l.entry.Release = l.setup.release()
	if l.Mode != PVH && l.setup.u16(xloadFlags)&kernel64 == 0 {
		return l.kernel.bad(errors.New("a 32-bit kernel (no XLF_KERNEL_64): take one for x86-64"))
	}
	if l.Mode == BzImage {
		return l.loadBzImage()
	}
	img, err := l.unpacked()
	if err == nil {
		err = l.loadImage(img)
	}
	if l.Mode == Auto && errors.Is(err, errUnsupported) {
		l.Log.Warn("the kernel will unpack itself", "path", l.Kernel, "why", err)
		return l.loadBzImage()
	}
	return err
}

// loadImage loads an unpacked kernel at its own addresses and picks its entry.
func (l *loader) loadImage(img *image) error {
	switch {
	case l.Mode == PVH && img.pvh == 0:
		return l.kernel.bad(errors.New("no PVH entry (Xen ELF note 18, CONFIG_PVH): take mode direct"))
	case l.Mode == Direct && img.entry == 0 && img.pvh != 0:
		return l.kernel.bad(errors.New("a 32-bit entry only (PVH): take mode auto or pvh"))
	case l.Mode == PVH, img.entry == 0 && img.pvh != 0:
		l.entry.Mode, l.entry.IP = PVH, uint64(img.pvh)
	case img.entry == 0:
		err := errors.New("an ELF that is entered neither at a physical address nor by PVH: take a Linux kernel")
		if l.isBzImage {
			err = fmt.Errorf("its payload has no 64-bit entry: %w", errUnsupported)
		}
		return l.kernel.bad(err)
	default:
		l.entry.Mode, l.entry.IP = Direct, img.entry
	}
	for _, s := range img.segments {
		end := mem.Addr(s.Addr + s.MemSize)
		if !holds(l.ram, mem.Addr(s.Addr), s.MemSize) {
			return l.tooSmall(uint64(end))
		}
		l.end = max(l.end, end)
	}
	if err := l.leaveInitSize(img); err != nil {
		return err
	}
	if err := img.place(l.mem); err != nil {
		return l.kernel.bad(err)
	}
	if l.Cache == nil {
		return l.entry.end(false) // nothing to keep
	}
	return nil
}

// leaveInitSize reserves the memory that a bzImage needs, counted from its first byte,
// before it can read its memory map (boot.rst, "init_size").
func (l *loader) leaveInitSize(img *image) error {
	if !l.isBzImage {
		return nil
	}
	base, need := mem.Addr(img.segments[0].Addr), uint64(l.setup.u32(initSize))
	if !holds(l.ram, base, need) {
		return l.tooSmall(uint64(base) + need)
	}
	l.end = max(l.end, base+mem.Addr(need))
	return nil
}

// loadBzImage loads the protected-mode code of a bzImage at its preferred address or
// above, with the room that it needs to unpack itself.
func (l *loader) loadBzImage() error {
	s := l.setup
	room, n := uint64(s.u32(initSize)), s.codeSize()
	n = min(n, l.kernel.size-s.codeOffset())
	pref := s.u64(prefAddress)
	if pref < uint64(holeEnd) || pref >= uint64(fourGiB) || uint64(n) > room {
		return l.kernel.bad(fmt.Errorf("%d bytes for address %#x, init_size %#x: the file is damaged, copy it again", n, pref, room))
	}
	base, ok := lowest(l.ram, mem.Addr(pref), room, s.alignment())
	if !ok || base > mem.Addr(pref) && s[relocatable] == 0 || base+mem.Addr(room) > fourGiB {
		return l.tooSmall(pref + room)
	}
	b, err := l.mem.Slice(base, uint64(n))
	if err != nil {
		return err
	}
	if err := l.kernel.readFull(b, s.codeOffset()); err != nil {
		return err
	}
	l.entry.Mode, l.entry.IP = BzImage, uint64(base)+entry64
	l.end = base + mem.Addr(room)
	return nil
}

// tooSmall reports that the kernel needs RAM up to end; with the initrds this gives
// the memory that the guest needs.
func (l *loader) tooSmall(end uint64) error {
	return l.kernel.bad(fmt.Errorf("needs RAM up to %d MiB, the guest has %d MiB: give it at least %d MiB",
		mib(end), l.mem.Size()>>20, mib(alignUp(end, mem.PageSize)+l.initrdSize())))
}

func mib(n uint64) uint64 { return alignUp(n, 1<<20) >> 20 }

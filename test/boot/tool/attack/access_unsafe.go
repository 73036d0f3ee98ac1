package attack

import "unsafe"

// A region is memory that a device sees: its registers, or our RAM. An access has
// exactly the given width, and happens once, in program order.
type region []byte

// load reads width bytes (1, 2, 4 or 8) at off, which needs no alignment.
func (r region) load(off uint64, width int) uint64 {
	p := unsafe.Pointer(&r[off : off+uint64(width)][0])
	switch width {
	case 1:
		return uint64(load8(p))
	case 2:
		return uint64(load16(p))
	case 4:
		return uint64(load32(p))
	}
	return load64(p)
}

// store writes the low width bytes of v at off.
func (r region) store(off uint64, width int, v uint64) {
	p := unsafe.Pointer(&r[off : off+uint64(width)][0])
	switch width {
	case 1:
		store8(p, uint8(v))
	case 2:
		store16(p, uint16(v))
	case 4:
		store32(p, uint32(v))
	default:
		store64(p, v)
	}
}

// One MOV each, which the compiler neither merges nor drops. (Package atomic stores
// with XCHG, which on a register causes two exits.)

//go:noinline
func load8(p unsafe.Pointer) uint8 { return *(*uint8)(p) }

//go:noinline
func load16(p unsafe.Pointer) uint16 { return *(*uint16)(p) }

//go:noinline
func load32(p unsafe.Pointer) uint32 { return *(*uint32)(p) }

//go:noinline
func load64(p unsafe.Pointer) uint64 { return *(*uint64)(p) }

//go:noinline
func store8(p unsafe.Pointer, v uint8) { *(*uint8)(p) = v }

//go:noinline
func store16(p unsafe.Pointer, v uint16) { *(*uint16)(p) = v }

//go:noinline
func store32(p unsafe.Pointer, v uint32) { *(*uint32)(p) = v }

//go:noinline
func store64(p unsafe.Pointer, v uint64) { *(*uint64)(p) = v }

// virtual returns the virtual address of r.
func (r region) virtual() uint64 { return uint64(uintptr(unsafe.Pointer(&r[0]))) }

package boot

import (
	"encoding/binary"

	"vmm/mem"
)

// PVH: the Xen HVM direct boot ABI (xen/docs/misc/pvh.pandoc). The kernel
// starts in 32-bit protected mode with EBX pointing at hvm_start_info.
const (
	startInfoMagic   = 0x336ec578
	startInfoVersion = 1 // with a memory map
	startInfoSize    = 56
	moduleSize       = 32
	memmapEntrySize  = 24
)

// writeStartInfo writes hvm_start_info, the module list and the memory map into one
// page.
func (l *loader) writeStartInfo() error {
	b := make([]byte, 0, mem.PageSize)
	le := binary.LittleEndian
	modules, modlist := uint32(0), uint64(0)
	if l.initrd.Size > 0 {
		modules, modlist = 1, uint64(startInfoBase)+startInfoSize
	}
	b = le.AppendUint32(b, startInfoMagic)
	b = le.AppendUint32(b, startInfoVersion)
	b = le.AppendUint32(b, 0) // flags
	b = le.AppendUint32(b, modules)
	b = le.AppendUint64(b, modlist)
	b = le.AppendUint64(b, uint64(cmdlineBase))
	b = le.AppendUint64(b, uint64(l.RSDP))
	b = le.AppendUint64(b, uint64(startInfoBase)+startInfoSize+moduleSize)
	b = le.AppendUint32(b, uint32(len(l.memmap)))
	b = le.AppendUint32(b, 0)

	b = le.AppendUint64(b, uint64(l.initrd.Base))
	b = le.AppendUint64(b, l.initrd.Size)
	b = le.AppendUint64(b, 0) // the module has no command line
	b = le.AppendUint64(b, 0)

	for _, e := range l.memmap { // at most maxMapSize, so one page is enough
		b = le.AppendUint64(b, e.base)
		b = le.AppendUint64(b, e.size)
		b = le.AppendUint32(b, e.typ)
		b = le.AppendUint32(b, 0)
	}
	return l.mem.Write(startInfoBase, b)
}

package pc

import "encoding/binary"

// DebugExitSize is the number of ports.
const DebugExitSize = 4

// DebugExit lets a test in the guest end the machine with a code, as QEMU's
// isa-debug-exit does (which maps code v to 2v+1; this does not).
type DebugExit struct {
	Exit func(code uint32)
}

// Read implements bus.Device. The port is write-only.
func (*DebugExit) Read(uint64, []byte) {}

// Write implements bus.Device. 1, 2 or 4 bytes at offset 0 are the code.
func (d *DebugExit) Write(off uint64, p []byte) {
	if off != 0 {
		return
	}
	switch len(p) {
	case 1:
		d.Exit(uint32(p[0]))
	case 2:
		d.Exit(uint32(binary.LittleEndian.Uint16(p)))
	case 4:
		d.Exit(binary.LittleEndian.Uint32(p))
	}
}

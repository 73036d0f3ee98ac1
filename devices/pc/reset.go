package pc

import "sync"

const (
	// ResetControlSize spans ports 0xcf8 to 0xcfb; 0xcf9 is the register. Accesses to
	// all four ports at once are for the PCI bridge instead.
	ResetControlSize = 4

	rstCnt     = 1
	rstCntMask = 0x0e   // SYS_RST, RST_CPU, FULL_RST
	rstCPU     = 1 << 2 // the edge to 1 resets; the others say how hard
)

// ResetControl is the register RST_CNT of Intel's chipsets (ICH datasheets, "Reset
// Control Register"). Linux resets through it with reboot=p. Its bits read as they
// were written.
type ResetControl struct {
	Reset func()

	mu  sync.Mutex
	reg byte
}

// Read implements bus.Device.
func (c *ResetControl) Read(off uint64, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	each(off, p, func(off uint64, b *byte) {
		if off == rstCnt {
			*b = c.reg
		}
	})
}

// Write implements bus.Device.
func (c *ResetControl) Write(off uint64, p []byte) {
	if len(p) == ResetControlSize {
		return
	}
	each(off, p, func(off uint64, b *byte) {
		if off == rstCnt && c.set(*b&rstCntMask) {
			c.Reset()
		}
	})
}

// set reports whether v resets.
func (c *ResetControl) set(v byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	edge := v&^c.reg&rstCPU != 0
	c.reg = v
	return edge
}

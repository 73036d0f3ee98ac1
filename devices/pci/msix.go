package pci

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// MaxVectors is the size of the largest MSI-X table, §6.8.2.3.
const MaxVectors = 2048

const (
	capMSIX       = 0x11
	entrySize     = 16
	vectorMask    = 1 << 0  // Vector Control, §6.8.2.9
	msixEnable    = 1 << 15 // Message Control, §6.8.2.3
	functionMask  = 1 << 14
	addressUnused = 3 // low bits of an address, §6.8.2.6
)

// MSIX is the message-signalled interrupts of a function, §6.8.2.
type MSIX struct {
	entries []entry
	enabled atomic.Bool

	mu   sync.Mutex // guards open, and entries except their state
	open bool       // Enable is set, Function Mask is not, and the function may access memory
}

// An entry is one vector. Signal may change its state at any time:
//
//	            Signal               unmasked
//	masked ---------------> pending ----------+
//	  |  ^                                    | sends
//	  |  |       masked                       v
//	  |  +--------------------------------- live  (Signal sends)
//	  |               unmasked                ^
//	  +---------------------------------------+
type entry struct {
	out   Vector
	state atomic.Uint32 // a set of the bits below
	Entry
	usable bool // not masked by itself or by the function, which may access memory

	// The message that out was last routed to, if any.
	routed  bool
	address uint64
	data    uint32
}

const (
	live    = 1 << 0 // messages can be sent
	pending = 1 << 1 // one must be sent; never together with live
)

// Entry is one MSI-X table entry as the guest sees it, §6.8.2.6 to §6.8.2.9.
type Entry struct {
	Address uint64 `json:"address"`
	Data    uint32 `json:"data"`
	Control uint32 `json:"control"` // Vector Control: bit 0 masks
}

// addMSIX gives f a table, and returns the capability that tells the guest about it.
// The table is in the first half of its BAR, the pending bits in the second.
func (f *Function) addMSIX(vectors []Vector) Capability {
	n := len(vectors)
	if n > MaxVectors {
		panic(fmt.Sprintf("internal error: pci: %d MSI-X vectors", n))
	}
	f.msix.entries = make([]entry, n)
	for i := range f.msix.entries {
		f.msix.entries[i].out = vectors[i]
		f.msix.entries[i].Control = vectorMask
	}
	half := uint64(2048)
	for half < entrySize*uint64(n) {
		half *= 2
	}
	i := f.freeBAR()
	f.addBAR(i, bar{BAR: BAR{Size: 2 * half, Device: table{&f.msix, half}}, ours: true})

	c := Capability{ID: capMSIX, Body: make([]byte, 10), Writable: make([]byte, 10)}
	le.PutUint16(c.Body, uint16(n-1))
	le.PutUint32(c.Body[2:], uint32(i))
	le.PutUint32(c.Body[6:], uint32(half)|uint32(i))
	le.PutUint16(c.Writable, msixEnable|functionMask)
	return c
}

func (f *Function) messageControl() uint16 {
	if f.msixAt == 0 {
		return 0
	}
	return le.Uint16(f.config[f.msixAt+2:])
}

// Vectors returns the number of vectors.
func (m *MSIX) Vectors() int { return len(m.entries) }

// Enabled reports whether the guest uses MSI-X. If not, the device uses INTx.
func (m *MSIX) Enabled() bool { return m.enabled.Load() }

// Signal sends the message of a vector, or makes it pending while the guest has the
// vector masked. It may be called on any goroutine with any lock held, and never
// waits. A vector that does not exist is ignored.
//
// A Signal under way while the guest masks the vector may still send. While MSI-X or
// bus mastering is off, or the vector's address cannot be sent to, the vector counts
// as masked: a needless interrupt later does no harm, a lost one does.
func (m *MSIX) Signal(vector uint16) {
	if int(vector) >= len(m.entries) {
		return
	}
	e := &m.entries[vector]
	for {
		s := e.state.Load()
		switch {
		case s&live != 0:
			e.out.Signal()
			return
		case s&pending != 0 || e.state.CompareAndSwap(s, s|pending):
			return
		}
	}
}

// setControl sets Message Control, and whether the function may access memory: a
// message is a write (§6.8.2, and Bus Master Enable in PCIe §7.5.1.1.3).
func (m *MSIX) setControl(control uint16, master bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enabled.Store(control&msixEnable != 0)
	open := master && control&(msixEnable|functionMask) == msixEnable
	if open == m.open {
		return
	}
	m.open = open
	for i := range m.entries {
		m.settle(&m.entries[i])
	}
}

// settle makes e usable or not, with mu held. The message is taken when e becomes
// usable: a guest must not change it later without masking the vector (§6.8.2, PCIe
// §7.7.2).
func (m *MSIX) settle(e *entry) {
	usable := m.open && e.Control&vectorMask == 0
	if usable == e.usable {
		return
	}
	e.usable = usable
	if !usable {
		e.state.And(^uint32(live))
		return
	}
	if !e.routed || e.address != e.Address || e.data != e.Data {
		e.routed = e.out.Route(e.Address, e.Data) == nil
		e.address, e.data = e.Address, e.Data
	}
	if e.routed && e.state.Swap(live)&pending != 0 {
		e.out.Signal()
	}
}

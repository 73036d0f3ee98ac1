package pci

// table is the BAR with the MSI-X table and the pending bit array, §6.8.2. Both are
// accessed in aligned words of 4 or 8 bytes. Other accesses, and those to the gap in
// between, read ones and write nothing.
type table struct {
	m   *MSIX
	pba uint64 // offset of the pending bits
}

// Offsets in an entry, §6.8.2.6 to §6.8.2.9.
const (
	entryAddress      = 0
	entryUpperAddress = 4
	entryData         = 8
	entryControl      = 12
)

// Read implements bus.Device.
func (t table) Read(off uint64, p []byte) {
	if !aligned(off, p) {
		return
	}
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	for i := 0; i < len(p); i += 4 {
		at := off + uint64(i)
		if at >= t.pba {
			t.m.readPending(at-t.pba, p[i:])
		} else if e := t.m.entry(at); e != nil {
			le.PutUint32(p[i:], e.read(at%entrySize))
		}
	}
}

// Write implements bus.Device. The pending bits are read-only: they come after the
// last entry.
func (t table) Write(off uint64, p []byte) {
	if !aligned(off, p) {
		return
	}
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	for i := 0; i < len(p); i += 4 {
		at := off + uint64(i)
		if e := t.m.entry(at); e != nil {
			e.write(at%entrySize, le.Uint32(p[i:]))
			t.m.settle(e)
		}
	}
}

func aligned(off uint64, p []byte) bool {
	n := uint64(len(p))
	return (n == 4 || n == 8) && off%n == 0
}

func (m *MSIX) entry(off uint64) *entry {
	if i := off / entrySize; i < uint64(len(m.entries)) {
		return &m.entries[i]
	}
	return nil
}

// readPending reads 32 pending bits, §6.8.2.10. The array consists of 64-bit words;
// bits without a vector are reserved and read as 0.
func (m *MSIX) readPending(off uint64, p []byte) {
	n := uint64(len(m.entries))
	first := off * 8
	if first >= (n+63)&^63 {
		return
	}
	var bits uint32
	for i := first; i < min(first+32, n); i++ {
		if m.entries[i].state.Load()&pending != 0 {
			bits |= 1 << (i - first)
		}
	}
	le.PutUint32(p, bits)
}

func (e *entry) read(off uint64) uint32 {
	switch off {
	case entryAddress:
		return uint32(e.Address)
	case entryUpperAddress:
		return uint32(e.Address >> 32)
	case entryData:
		return e.Data
	default:
		return e.Control
	}
}

func (e *entry) write(off uint64, v uint32) {
	switch off {
	case entryAddress:
		e.Address = e.Address&^0xffff_ffff | uint64(v&^addressUnused)
	case entryUpperAddress:
		e.Address = e.Address&0xffff_ffff | uint64(v)<<32
	case entryData:
		e.Data = v
	case entryControl:
		e.Control = v & vectorMask
	}
}

package virtiotest

import (
	"testing"

	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

// Flags of descriptors, §2.7.5 and §2.8.
const (
	flagNext     = 1 << 0
	flagWrite    = 1 << 1
	flagIndirect = 1 << 2
	flagAvail    = 1 << 7
	flagUsed     = 1 << 15
)

// A desc is a descriptor as a driver writes it; next is for split rings only.
type desc struct {
	addr  mem.Addr
	n     uint32
	flags uint16
	next  uint16
}

// A ring is a correct driver side of one of the two formats, except for what raw is
// told to do.
type ring interface {
	// free returns how many descriptors the ring has room for.
	free() int
	// add makes a chain available, and returns its ID.
	add(chain []desc) uint16
	// raw writes descriptors unchanged from where the next chain begins, and makes
	// the first available (split: those in heads). It does not update free, and only
	// a reset helps afterwards.
	raw(descs []desc, heads ...uint16)
	// wantsKick reports whether the device wants to be notified of what was added
	// since the last call.
	wantsKick() bool
	// used returns the next used chain.
	used() (id uint16, n uint32, ok bool)
	// peek reports whether there is one.
	peek() bool
	// listen asks for an interrupt once later more chains than one are used, each of
	// one descriptor; ignore asks for none.
	listen(later uint16)
	ignore()
	// device returns what the device may write.
	device() []span
}

// memory is RAM in the form that rings need.
type memory struct {
	tb testing.TB
	m  *mem.Memory
}

func (m memory) bytes(a mem.Addr, n int) []byte {
	m.tb.Helper()
	b, err := m.m.Slice(a, uint64(n))
	if err != nil {
		m.tb.Fatal(err)
	}
	return b
}

func (m memory) u16(a mem.Addr) mem.U16 {
	m.tb.Helper()
	c, err := m.m.U16(a)
	if err != nil {
		m.tb.Fatal(err)
	}
	return c
}

func (m memory) words(a mem.Addr, n int) []uint32 {
	m.tb.Helper()
	w, err := m.m.Words(a, uint64(n))
	if err != nil {
		m.tb.Fatal(err)
	}
	return w
}

// newRing returns an empty ring and clears its RAM.
func newRing(m memory, l virtq.Layout, f virtq.Format) ring {
	if f.Packed {
		return newPacked(m, l, f)
	}
	return newSplit(m, l, f)
}

// areas returns the sizes of the three areas of a ring, §2.7 and §2.8.10.1.
func areas(size int, f virtq.Format) (desc, driver, device int) {
	if f.Packed {
		return 16 * size, 4, 4
	}
	return 16 * size, 6 + 2*size, 6 + 8*size
}

func putDesc(b []byte, d desc) {
	le.PutUint64(b, uint64(d.addr))
	le.PutUint32(b[8:], d.n)
	le.PutUint16(b[12:], d.flags)
	le.PutUint16(b[14:], d.next)
}

// putTable writes an indirect table, in either format.
func putTable(b []byte, f virtq.Format, chain []desc) {
	for i, d := range chain {
		d.flags &= flagWrite
		if f.Packed {
			putDesc(b[16*i:], desc{d.addr, d.n, 0, d.flags}) // flags are where next is
			continue
		}
		if i < len(chain)-1 {
			d.flags |= flagNext
		}
		d.next = uint16(i + 1)
		putDesc(b[16*i:], d)
	}
}

// needEvent is vring_need_event of §2.7.10.1.
func needEvent(event, new, old uint16) bool { return new-event-1 < new-old }

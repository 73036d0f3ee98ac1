package virtiotest

import (
	"vmm/devices/virtio/virtq"
	"vmm/mem"
)

// split is a driver's split ring, §2.7.13 and §2.7.14.
type split struct {
	layout                virtq.Layout
	format                virtq.Format
	size                  uint16
	desc, avail, usedRing []byte
	flags, idx            mem.U16 // available
	usedEvent, availEvent mem.U16
	usedFlags, usedIdx    mem.U16

	heads             []uint16 // free descriptors
	next              []uint16 // of a chain
	length            []uint16 // of the chain with this head
	at, kicked, taken uint16
}

func newSplit(m memory, l virtq.Layout, f virtq.Format) *split {
	n := int(l.Size)
	descSize, driverSize, deviceSize := areas(n, f)
	clear(m.bytes(l.Desc, descSize))
	clear(m.bytes(l.Driver, driverSize))
	clear(m.bytes(l.Device, deviceSize))
	r := &split{
		layout: l, format: f, size: l.Size,
		desc: m.bytes(l.Desc, descSize), avail: m.bytes(l.Driver+4, 2*n), usedRing: m.bytes(l.Device+4, 8*n),
		flags: m.u16(l.Driver), idx: m.u16(l.Driver + 2), usedEvent: m.u16(l.Driver + mem.Addr(4+2*n)),
		usedFlags: m.u16(l.Device), usedIdx: m.u16(l.Device + 2), availEvent: m.u16(l.Device + mem.Addr(4+8*n)),
		next: make([]uint16, n), length: make([]uint16, n),
	}
	for i := range n {
		r.heads = append(r.heads, uint16(n-1-i))
	}
	return r
}

func (r *split) device() []span {
	// Two more bytes: avail_event is accessed with the word that it is in.
	return []span{{r.layout.Device, 8 + 8*uint64(r.size)}}
}

func (r *split) free() int { return len(r.heads) }

func (r *split) take() uint16 {
	last := len(r.heads) - 1
	i := r.heads[last]
	r.heads = r.heads[:last]
	return i
}

func (r *split) add(chain []desc) uint16 {
	head := r.take()
	r.length[head] = uint16(len(chain))
	for i, at := 0, head; i < len(chain); i++ {
		d := chain[i]
		if i < len(chain)-1 {
			d.next = r.take()
			d.flags |= flagNext
		}
		putDesc(r.desc[16*int(at):], d)
		r.next[at] = d.next
		at = d.next
	}
	r.publish(head)
	return head
}

func (r *split) publish(heads ...uint16) {
	for _, head := range heads {
		le.PutUint16(r.avail[2*int(r.at%r.size):], head)
		r.at++
	}
	r.idx.Store(r.at)
}

func (r *split) raw(descs []desc, heads ...uint16) {
	if heads == nil {
		heads = []uint16{0}
	}
	for i, d := range descs {
		putDesc(r.desc[16*i:], d)
	}
	r.publish(heads...)
}

func (r *split) wantsKick() bool {
	old := r.kicked
	r.kicked = r.at
	if r.format.EventIdx {
		return needEvent(r.availEvent.Load(), r.at, old)
	}
	return r.usedFlags.Load()&1 == 0
}

func (r *split) peek() bool { return r.usedIdx.Load() != r.taken }

func (r *split) used() (uint16, uint32, bool) {
	if !r.peek() {
		return 0, 0, false
	}
	e := r.usedRing[8*int(r.taken%r.size):]
	r.taken++
	id, n := le.Uint32(e), le.Uint32(e[4:])
	if id >= uint32(r.size) {
		return 0xffff, n, true
	}
	for i, at := uint16(0), uint16(id); i < r.length[id]; i++ {
		r.heads = append(r.heads, at)
		at = r.next[at]
	}
	return uint16(id), n, true
}

func (r *split) listen(later uint16) {
	if r.format.EventIdx {
		r.usedEvent.Store(r.taken + later)
	} else {
		r.flags.Store(0)
	}
}

func (r *split) ignore() {
	if r.format.EventIdx {
		r.usedEvent.Store(r.taken - 1)
	} else {
		r.flags.Store(1)
	}
}

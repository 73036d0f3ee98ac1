package virtiotest

import (
	"sync/atomic"

	"vmm/devices/virtio/virtq"
)

// packed is a driver's packed ring, §2.8.21 and §2.8.22.
type packed struct {
	layout      virtq.Layout
	format      virtq.Format
	size        int
	words       []uint32 // four per descriptor; the last is id and flags
	driverEvent *uint32
	deviceEvent *uint32

	ids             []uint16 // free
	length          []int    // of the chain with this ID
	room            int      // free descriptors
	at, taken       int
	wrap, takenWrap uint32
	added           uint16
}

func newPacked(m memory, l virtq.Layout, f virtq.Format) *packed {
	n := int(l.Size)
	clear(m.bytes(l.Desc, 16*n))
	clear(m.bytes(l.Driver, 4))
	clear(m.bytes(l.Device, 4))
	r := &packed{
		layout: l, format: f, size: n,
		words: m.words(l.Desc, 4*n), driverEvent: &m.words(l.Driver, 1)[0], deviceEvent: &m.words(l.Device, 1)[0],
		length: make([]int, n), room: n, wrap: 1, takenWrap: 1,
	}
	for i := range n {
		r.ids = append(r.ids, uint16(n-1-i))
	}
	return r
}

func (r *packed) device() []span {
	return []span{{r.layout.Desc, uint64(16 * r.size)}, {r.layout.Device, 4}}
}

func (r *packed) free() int { return r.room }

func (r *packed) add(chain []desc) uint16 {
	last := len(r.ids) - 1
	id := r.ids[last]
	r.ids = r.ids[:last]
	r.length[id] = len(chain)
	r.room -= len(chain)
	r.added += uint16(len(chain))
	for i := range chain[:len(chain)-1] {
		chain[i].flags |= flagNext
	}
	r.publish(chain, id)
	return id
}

// publish writes descriptors, and the flags of the first one last.
func (r *packed) publish(chain []desc, id uint16) {
	first, word := r.at, uint32(0)
	for i, d := range chain {
		e := r.words[4*r.at:]
		e[0], e[1], e[2] = uint32(d.addr), uint32(d.addr>>32), d.n
		flags := uint32(d.flags) ^ flagAvail
		if r.wrap == 0 {
			flags ^= flagAvail | flagUsed
		}
		if i == 0 {
			word = flags<<16 | uint32(id)
		} else {
			atomic.StoreUint32(&e[3], flags<<16|uint32(id))
		}
		if r.at++; r.at == r.size {
			r.at = 0
			r.wrap ^= 1
		}
	}
	atomic.StoreUint32(&r.words[4*first+3], word)
}

func (r *packed) raw(descs []desc, heads ...uint16) {
	id := uint16(0)
	if len(heads) > 0 {
		id = heads[0]
	}
	r.publish(descs, id)
}

// wantsKick does as §2.8.21.3.1 says, in Linux's way.
func (r *packed) wantsKick() bool {
	now := uint16(r.at)
	old := now - r.added
	r.added = 0
	e := atomic.LoadUint32(r.deviceEvent)
	if flags := e >> 16 & 3; flags != 2 {
		return flags != 1
	}
	event := uint16(e &^ (1 << 15))
	if e>>15&1 != r.wrap {
		event -= uint16(r.size)
	}
	return needEvent(event, now, old)
}

func (r *packed) peek() bool {
	word := atomic.LoadUint32(&r.words[4*r.taken+3])
	return word>>31 == r.takenWrap && word>>23&1 == r.takenWrap
}

func (r *packed) used() (uint16, uint32, bool) {
	if !r.peek() {
		return 0, 0, false
	}
	e := r.words[4*r.taken:]
	word := atomic.LoadUint32(&e[3])
	id, n := uint16(word), uint32(0)
	if word>>16&flagWrite != 0 {
		n = e[2] // §2.8.3: otherwise it means nothing
	}
	if int(id) >= r.size {
		return 0xffff, n, true
	}
	r.ids = append(r.ids, id)
	r.room += r.length[id]
	if r.taken += r.length[id]; r.taken >= r.size {
		r.taken -= r.size
		r.takenWrap ^= 1
	}
	return id, n, true
}

func (r *packed) listen(later uint16) {
	if !r.format.EventIdx {
		atomic.StoreUint32(r.driverEvent, 0)
		return
	}
	off, wrap := r.taken+int(later), r.takenWrap
	if off >= r.size {
		off -= r.size
		wrap ^= 1
	}
	atomic.StoreUint32(r.driverEvent, 2<<16|wrap<<15|uint32(off))
}

func (r *packed) ignore() { atomic.StoreUint32(r.driverEvent, 1<<16) }

func (r *packed) setEvent(v uint32) { atomic.StoreUint32(r.driverEvent, v) }

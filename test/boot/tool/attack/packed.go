package attack

// packedRing is the driver's side of a packed queue, §2.8.
type packedRing struct {
	mem  region
	desc uint64
	size uint16

	at   uint16 // where the next descriptor goes
	wrap bool   // driver's wrap counter

	lens     map[uint16]uint16 // of chains, by buffer ID
	usedAt   uint16
	usedWrap bool
	back     int // chains that came back
}

func newPackedRing(mem region, desc, _, _ uint64, size uint16) *packedRing {
	return &packedRing{mem: mem, desc: desc, size: size, wrap: true, usedWrap: true, lens: map[uint16]uint16{}}
}

func (r *packedRing) add(bufs ...buf) { r.addAs(r.at, bufs...) }

// addAs makes a descriptor list with a buffer ID available. It writes the head's flags
// last.
func (r *packedRing) addAs(id uint16, bufs ...buf) {
	r.lens[id] = uint16(len(bufs))
	var head uint64
	var headFlags uint16
	for i, b := range bufs {
		if i < len(bufs)-1 {
			b.flags |= descNext
		}
		at, flags := r.place(b, id)
		if i == 0 {
			head, headFlags = at, flags
		} else {
			r.mem.store(at+14, 2, uint64(flags))
		}
	}
	r.mem.store(head+14, 2, uint64(headFlags))
}

// place writes the next descriptor except its flags, which it returns.
func (r *packedRing) place(b buf, id uint16) (at uint64, flags uint16) {
	at = r.desc + 16*uint64(r.at)
	r.mem.store(at, 8, b.addr)
	r.mem.store(at+8, 4, uint64(b.n))
	r.mem.store(at+12, 2, uint64(id))
	flags = b.flags | descUsed
	if r.wrap {
		flags = b.flags | descAvail
	}
	if r.at++; r.at == r.size {
		r.at, r.wrap = 0, !r.wrap
	}
	return at, flags
}

func (r *packedRing) used() int {
	for {
		at := r.desc + 16*uint64(r.usedAt)
		flags := r.mem.load(at+14, 2)
		if avail, used := flags&descAvail != 0, flags&descUsed != 0; avail != used || used != r.usedWrap {
			return r.back
		}
		n := max(r.lens[uint16(r.mem.load(at+12, 2))], 1)
		if r.usedAt += n; r.usedAt >= r.size {
			r.usedAt, r.usedWrap = r.usedAt-r.size, !r.usedWrap
		}
		r.back++
	}
}

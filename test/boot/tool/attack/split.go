package attack

// splitRing is the driver's side of a split queue, §2.7. Descriptors are used in order,
// without tracking which are free: cases are short.
type splitRing struct {
	mem               region
	desc, avail, dev  uint64
	size, next, count uint16 // count: chains made available
}

func newSplitRing(mem region, desc, avail, dev uint64, size uint16) *splitRing {
	return &splitRing{mem: mem, desc: desc, avail: avail, dev: dev, size: size}
}

func (r *splitRing) add(bufs ...buf) {
	head := r.next
	for i, b := range bufs {
		if i < len(bufs)-1 {
			b.flags |= descNext
		}
		at := r.next
		r.next = (r.next + 1) % r.size
		r.setDesc(at, b, r.next)
	}
	r.offer(head)
}

// setDesc writes a descriptor.
func (r *splitRing) setDesc(i uint16, b buf, next uint16) {
	writeDesc(r.mem, r.desc+16*uint64(i), b, next)
}

func writeDesc(mem region, at uint64, b buf, next uint16) {
	mem.store(at, 8, b.addr)
	mem.store(at+8, 4, uint64(b.n))
	mem.store(at+12, 2, uint64(b.flags))
	mem.store(at+14, 2, uint64(next))
}

// offer makes any head available.
func (r *splitRing) offer(head uint16) {
	r.mem.store(r.avail+4+2*uint64(r.count%r.size), 2, uint64(head))
	r.count++
	r.setIdx(r.count)
}

// setIdx writes the available index.
func (r *splitRing) setIdx(v uint16) { r.mem.store(r.avail+2, 2, uint64(v)) }

func (r *splitRing) used() int { return int(r.mem.load(r.dev+2, 2)) }

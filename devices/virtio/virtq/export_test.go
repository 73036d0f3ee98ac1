package virtq

// BeforeListen sets f to be called whenever the queue was found empty and is about to
// ask the driver for kicks.
func (q *Queue) BeforeListen(f func()) { q.ring = &hooked{q.ring, f} }

type hooked struct {
	ring
	before func()
}

func (h *hooked) listen() bool {
	h.before()
	return h.ring.listen()
}

// Pooled returns how many chains are kept for Pop, and how many buffers their slices
// can hold.
func (q *Queue) Pooled() (chains, room int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.pool {
		room += c.capacity()
	}
	if room != q.pooled {
		panic("pooled is wrong")
	}
	return len(q.pool), room
}

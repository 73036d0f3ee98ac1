package virtq

import (
	"errors"
	"fmt"
	"sync/atomic"

	"vmm/mem"
)

// Flags of the event suppression structures, §2.8.10. 3 is reserved.
const (
	eventEnable  = 0 // RING_EVENT_FLAGS_ENABLE
	eventDisable = 1 // RING_EVENT_FLAGS_DISABLE
	eventDesc    = 2 // RING_EVENT_FLAGS_DESC, with EVENT_IDX only
)

// wrapShift is the bit of the wrap counter above an offset, in a saved State and in
// the event suppression structures (§2.8.14).
const wrapShift = 15

// A position is an offset in the ring, with the wrap counter above it.
type position uint16

func (p position) off() int     { return int(p &^ (1 << wrapShift)) }
func (p position) wrap() uint32 { return uint32(p >> wrapShift) }

// advance returns the position n descriptors further on. n is at most size.
func (p position) advance(n, size uint16) position {
	off := p.off() + int(n)
	if off < int(size) {
		return p + position(n)
	}
	return position(off-int(size)) | ^p&(1<<wrapShift)
}

// available reports whether flags, of the descriptor at p, mean that the driver made
// it available, §2.8.1.
func (p position) available(flags uint32) bool {
	return flags>>7&1 == p.wrap() && flags>>15&1 != p.wrap()
}

// packed is a packed virtqueue, §2.8.
type packed struct {
	mem    *mem.Memory
	format Format
	size   uint16

	ring        []uint32 // four words per descriptor: addr, addr, len, id and flags
	driverEvent *uint32  // written by the driver: offset and wrap counter, flags above
	deviceEvent *uint32  // written by us, in the same form

	avail     position // of the next chain to take
	used      position // of the next used descriptor
	inFlight  uint16   // ring descriptors between the two
	listening bool
}

// newPacked finds the areas. They have the alignment of §2.8.10.1.
func newPacked(m *mem.Memory, l Layout, f Format, s State) (*packed, error) {
	r := &packed{mem: m, format: f, size: l.Size, avail: position(s.Avail), used: position(s.Used)}
	if size := int(l.Size); r.avail.off() >= size || r.used.off() >= size {
		return nil, fmt.Errorf("virtqueue: state %#x, %#x: not in a ring of %d", s.Avail, s.Used, l.Size)
	}
	ring, err := m.Words(l.Desc, descSize/4*uint64(l.Size))
	driver, err1 := m.Words(l.Driver, 1)
	device, err2 := m.Words(l.Device, 1)
	if err := errors.Join(err, err1, err2); err != nil {
		return nil, fmt.Errorf("virtqueue: %w", err)
	}
	r.ring, r.driverEvent, r.deviceEvent = ring, &driver[0], &device[0]
	return r, nil
}

func (r *packed) state() State { return State{Avail: uint16(r.avail), Used: uint16(r.used)} }

// desc returns the words of the descriptor at p. Each side publishes by writing the
// last, id and flags.
func (r *packed) desc(p position) []uint32 { return r.ring[4*p.off():][:4] }

func (r *packed) next(c *Chain) (bool, error) {
	end, ok, err := r.walk(c)
	if err != nil {
		return false, fmt.Errorf("virtqueue: list at descriptor %d: %w", r.avail.off(), err)
	}
	if ok {
		c.from = uint16(r.avail)
		r.avail = end
		r.inFlight += c.slots
	}
	return ok, nil
}

// walk adds the descriptors of the list at r.avail, if it is available, and
// returns the position after it. The list may use only ring descriptors that are
// not in flight: otherwise the driver has overwritten some that are.
func (r *packed) walk(c *Chain) (position, bool, error) {
	at := r.avail
	d := r.desc(at)
	last := atomic.LoadUint32(&d[3])
	if !at.available(last >> 16) {
		return at, false, nil
	}
	for {
		if c.slots++; r.inFlight+c.slots > r.size {
			return at, false, fmt.Errorf("more than %d descriptors in flight", r.size)
		}
		addr, n, flags := mem.Addr(d[1])<<32|mem.Addr(d[0]), d[2], last>>16
		var err error
		switch {
		case flags&descIndirect == 0:
			err = c.add(addr, n, flags&descWrite != 0)
		case flags&descNext != 0 || c.slots > 1:
			err = errMixed // §2.8.19: unlike in a split ring, not even at the end
		default:
			err = r.table(c, addr, n)
		}
		if err != nil {
			return at, false, err
		}
		at = at.advance(1, r.size)
		if flags&descNext == 0 {
			c.id = uint16(last) // §2.8.6: of the last descriptor
			return at, true, nil
		}
		d = r.desc(at)
		if last = atomic.LoadUint32(&d[3]); !at.available(last >> 16) {
			return at, false, errors.New("it is available but in part") // §2.8.17
		}
	}
}

// table adds a whole indirect table. NEXT has no meaning there, nor has any flag
// except WRITE (§2.8.7).
func (r *packed) table(c *Chain, addr mem.Addr, n uint32) error {
	t, err := indirect(r.mem, r.format, addr, n)
	for ; err == nil && len(t) > 0; t = t[descSize:] {
		err = c.add(mem.Addr(le.Uint64(t)), le.Uint32(t[8:]), le.Uint16(t[14:])&descWrite != 0)
	}
	return err
}

func (r *packed) undo(c *Chain) bool {
	from := position(c.from)
	if from.advance(c.slots, r.size) != r.avail {
		return false
	}
	r.avail = from
	r.inFlight -= c.slots
	return true
}

func (r *packed) retake(_, slots uint16) bool {
	if slots == 0 || slots > r.size-r.inFlight {
		return false
	}
	r.inFlight += slots
	return true
}

// use writes one used descriptor for a whole list, at the next position wherever the
// list itself is, and advances by the list's length (§2.8.6). The driver looks at the
// first before it looks at the next, so the first is published last.
func (r *packed) use(batch []Used) bool {
	before, slots := r.used, uint16(0)
	first := r.desc(r.used)
	var head uint32
	for i, u := range batch {
		flags := uint32(0)
		if r.used.wrap() == 1 {
			flags = descAvail | descUsed
		}
		if u.N > 0 {
			flags |= descWrite // §2.8.3
		}
		d := r.desc(r.used)
		d[2] = u.N
		if last := flags<<16 | uint32(u.Chain.id); i == 0 {
			head = last
		} else {
			atomic.StoreUint32(&d[3], last)
		}
		r.used = r.used.advance(u.Chain.slots, r.size)
		slots += u.Chain.slots
	}
	r.inFlight -= slots
	atomic.StoreUint32(&first[3], head) // and a barrier
	return r.signal(before, slots)
}

// signal reports whether the driver wants an interrupt for the n descriptors from p
// on, §2.8.10. An invalid request means yes: an extra interrupt does no harm.
func (r *packed) signal(p position, n uint16) bool {
	e := atomic.LoadUint32(r.driverEvent)
	flags := e >> 16 & 3
	if flags != eventDesc || !r.format.EventIdx {
		return flags != eventDisable
	}
	// Positions repeat after two laps. The driver's position is one of the n if it is
	// less than n ahead of p.
	size := int(r.size)
	event := position(e)
	ahead := event.off() - p.off()
	if event.wrap() != p.wrap() {
		ahead += size
	}
	if ahead < 0 {
		ahead += 2 * size
	}
	return ahead < int(n)
}

func (r *packed) listen() bool {
	if r.listening {
		return false
	}
	r.listening = true
	e := uint32(eventEnable << 16)
	if r.format.EventIdx {
		e = eventDesc<<16 | uint32(r.avail)
	}
	atomic.StoreUint32(r.deviceEvent, e) // and a barrier
	return true
}

// ignore disables kicks even with EVENT_IDX: otherwise the driver would pass the old
// position again after two laps, which is soon in a small ring.
func (r *packed) ignore() {
	if r.listening {
		r.listening = false
		atomic.StoreUint32(r.deviceEvent, eventDisable<<16)
	}
}

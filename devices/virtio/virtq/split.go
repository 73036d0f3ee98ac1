package virtq

import (
	"errors"
	"fmt"
	"sync/atomic"

	"vmm/mem"
)

const (
	availNoInterrupt = 1 // VIRTQ_AVAIL_F_NO_INTERRUPT, §2.7.6
	usedNoNotify     = 1 // VIRTQ_USED_F_NO_NOTIFY, §2.7.8
)

// split is a split virtqueue, §2.7.
type split struct {
	mem    *mem.Memory
	format Format
	size   uint16

	// The descriptor area and the driver area, which we only read.
	desc       []byte
	availFlags mem.U16
	availIdx   mem.U16
	availRing  []byte
	usedEvent  mem.U16

	// The device area, which we only write. flags and idx are one aligned word, and
	// both are ours, so they are stored together.
	usedWord   *uint32
	usedRing   []byte
	availEvent mem.U16

	seen      uint16 // the driver's idx when last loaded
	avail     uint16 // chains taken, modulo 2^16
	used      uint16 // chains used, modulo 2^16
	inFlight  uint16
	listening bool
}

// newSplit finds the areas. They have the alignment of §2.7.
func newSplit(m *mem.Memory, l Layout, f Format, s State) (*split, error) {
	n := uint64(l.Size)
	r := &split{mem: m, format: f, size: l.Size, seen: s.Avail, avail: s.Avail, used: s.Used}
	// The areas as a whole, so that no address below can overflow.
	desc, err := m.Slice(l.Desc, descSize*n)
	driver, err1 := m.Slice(l.Driver, 6+2*n)
	device, err2 := m.Slice(l.Device, 6+8*n)
	if err := errors.Join(err, err1, err2); err != nil {
		return nil, fmt.Errorf("virtqueue: %w", err)
	}
	r.desc, r.availRing, r.usedRing = desc, driver[4:4+2*n], device[4:4+8*n]

	var errs [5]error
	var word []uint32
	r.availFlags, errs[0] = m.U16(l.Driver)
	r.availIdx, errs[1] = m.U16(l.Driver + 2)
	r.usedEvent, errs[2] = m.U16(l.Driver + mem.Addr(4+2*n))
	r.availEvent, errs[3] = m.U16(l.Device + mem.Addr(4+8*n))
	word, errs[4] = m.Words(l.Device, 1)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("virtqueue: %w", err)
	}
	r.usedWord = &word[0]
	return r, nil
}

func (r *split) state() State { return State{Avail: r.avail, Used: r.used} }

func (r *split) next(c *Chain) (bool, error) {
	if r.avail == r.seen {
		idx := r.availIdx.Load()
		// §2.7.6.1: it never goes back, and there are no more chains than heads.
		if idx-r.avail > r.size {
			return false, fmt.Errorf("virtqueue: available index jumped from %d to %d", r.avail, idx)
		}
		if r.seen = idx; r.avail == r.seen {
			return false, nil
		}
	}
	// If a head could be available twice before it is used, the driver could make us
	// hold any number of chains.
	if r.inFlight == r.size {
		return false, fmt.Errorf("virtqueue: more than %d chains in flight", r.size)
	}
	c.from = r.avail
	c.id = le.Uint16(r.availRing[2*int(r.avail&(r.size-1)):])
	if err := r.walk(c); err != nil {
		return false, fmt.Errorf("virtqueue: chain of descriptor %d: %w", c.id, err)
	}
	r.avail++
	r.inFlight++
	return true, nil
}

// walk adds the descriptors of the chain whose head is c.id: some in the ring, then
// some in a table if the last of those is indirect (§2.7.5.3.2). Chain.add limits
// their number; in the ring there are no more than its size.
func (r *split) walk(c *Chain) error {
	table, i, inTable := r.desc, int(c.id), false
	for {
		if !inTable && c.descs == int(r.size) {
			return errTooLong
		}
		if i >= len(table)/descSize {
			return fmt.Errorf("descriptor %d of %d", i, len(table)/descSize)
		}
		d := table[descSize*i:][:descSize]
		addr, n, flags, next := mem.Addr(le.Uint64(d)), le.Uint32(d[8:]), le.Uint16(d[12:]), le.Uint16(d[14:])
		if flags&descIndirect != 0 {
			if inTable {
				return errors.New("an indirect table within another")
			}
			if flags&descNext != 0 {
				return errMixed // §2.7.5.3.1
			}
			var err error
			if table, err = indirect(r.mem, r.format, addr, n); err != nil {
				return err
			}
			i, inTable = 0, true
			continue
		}
		if err := c.add(addr, n, flags&descWrite != 0); err != nil {
			return err
		}
		if flags&descNext == 0 {
			return nil
		}
		i = int(next)
	}
}

func (r *split) undo(c *Chain) bool {
	if c.from+1 != r.avail {
		return false
	}
	r.avail--
	r.inFlight--
	return true
}

func (r *split) retake(id, _ uint16) bool {
	if id >= r.size || r.inFlight == r.size {
		return false
	}
	r.inFlight++
	return true
}

func (r *split) use(batch []Used) bool {
	before := r.used
	for _, u := range batch {
		e := r.usedRing[8*int(r.used&(r.size-1)):][:8]
		le.PutUint32(e, uint32(u.Chain.id))
		le.PutUint32(e[4:], u.N)
		r.used++
	}
	r.inFlight -= r.used - before
	r.publish() // and a barrier
	if r.format.EventIdx {
		// §2.7.7.2: vring_need_event(event, used, before).
		return r.used-r.usedEvent.Load()-1 < r.used-before
	}
	return r.availFlags.Load()&availNoInterrupt == 0
}

// publish stores the flags and idx of the used ring. With EVENT_IDX, flags is 0
// (§2.7.10.2).
func (r *split) publish() {
	flags := uint32(0)
	if !r.listening && !r.format.EventIdx {
		flags = usedNoNotify
	}
	atomic.StoreUint32(r.usedWord, uint32(r.used)<<16|flags)
}

func (r *split) listen() bool {
	if r.listening {
		return false
	}
	r.listening = true
	if r.format.EventIdx {
		r.availEvent.Store(r.avail) // and a barrier
	} else {
		r.publish() // and a barrier
	}
	return true
}

// ignore has nothing to do with EVENT_IDX: the driver has passed avail_event and will
// reach it again only after 65536 chains.
func (r *split) ignore() {
	if !r.listening {
		return
	}
	r.listening = false
	if !r.format.EventIdx {
		r.publish()
	}
}

package virtq

import "errors"

// An Owed is a chain that was pushed while the queue was held, and that the driver
// has not yet been told of.
type Owed struct {
	ID    uint16
	Slots uint16 `json:",omitempty"` // of a packed ring
	N     uint32 `json:",omitempty"` // bytes written
}

// Hold makes the queue leave guest memory alone until Release: it seems empty, and
// what is pushed is kept back. Chains popped earlier stay with the device.
func (q *Queue) Hold() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = true
}

// Release undoes Hold, and gives the driver what was kept back. The caller must make
// sure that the queue is then popped once. A stopped queue stays held: Owed returns
// what it owes.
func (q *Queue) Release() {
	if n := q.release(); n > 0 {
		q.signal(n)
	}
}

// release is Release without the interrupt. It returns the number of chains that need
// one.
func (q *Queue) release() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped || !q.held {
		return 0
	}
	batch := q.owed
	q.held, q.owed = false, nil
	if len(batch) == 0 {
		return 0
	}
	q.pending += len(batch)
	if !q.publish(batch) {
		return 0
	}
	return len(batch)
}

// keepBack is use of a held queue. The chains are not pending: a stop does not wait
// for Release. The caller holds mu.
func (q *Queue) keepBack(batch []Used) {
	for _, u := range batch {
		u.Chain.popped = false
	}
	q.owed = append(q.owed, batch...) // no more than are in flight
	q.finish(len(batch))
}

// Owed returns what a drained queue has kept back, for Owe of the queue that
// continues it.
func (q *Queue) Owed() (list []Owed) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, u := range q.owed {
		list = append(list, Owed{u.Chain.id, u.Chain.slots, u.N})
	}
	return list
}

var errOwed = errors.New("virtqueue: the state owes the driver more chains than there are, or none that there is")

// Owe makes a new queue owe the driver what an earlier one did. The queue is held
// until Release. The list may be untrusted.
func (q *Queue) Owe(list []Owed) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = true
	for _, o := range list {
		if !q.ring.retake(o.ID, o.Slots) {
			return errOwed
		}
		c := q.take()
		c.id, c.slots = o.ID, o.Slots
		q.owed = append(q.owed, Used{c, o.N})
	}
	return nil
}

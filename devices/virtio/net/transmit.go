package net

import (
	"vmm/devices/virtio/virtq"
	"vmm/ethernet"
)

// transmitter moves the frames of one queue to the link, §5.1.6.2.
type transmitter struct {
	d       *Device
	pair    int
	allowed ethernet.Offload // what the driver may leave to the link
	header  ethernet.Header
	sent    []virtq.Used // for serve: chains to give back
	pace    pace
	counters
}

func (t *transmitter) start(features uint64) { t.allowed = offload(hostOffloads, features) }

// serve sends until nothing is left, or the link cannot take more. In that case the
// frame stays in the queue, and the link's Writable makes serve run again. Frames are
// given back in batches, because the driver is in no hurry for them.
func (t *transmitter) serve(q *virtq.Queue) {
	sent, before := t.sent[:0], t.bytes.Load()
	for c := q.Pop(); c != nil; c = q.Pop() {
		if t.send(c) == ethernet.ErrAgain {
			q.Unpop(c)
			break
		}
		if sent = append(sent, virtq.Used{Chain: c}); len(sent) == cap(sent) {
			q.PushAll(sent)
			sent = sent[:0]
		}
	}
	q.PushAll(sent)
	t.pace.moved(q, t.bytes.Load()-before)
}

// sentBatch is how many frames at most are given back at once: a quarter of the
// queue, so that the driver can continue.
const sentBatch = queueSize / 4

// send sends the frame in a chain. Only ethernet.ErrAgain is returned to the caller.
func (t *transmitter) send(c *virtq.Chain) error {
	h := &t.header
	if !c.ReadFull(h[:]) {
		t.errors.Add(1)
		return nil
	}
	n := c.ReadableLen()
	needs, ok := h.Needs()
	if !ok || needs&^t.allowed != 0 || n < ethernet.HeaderLen || n > ethernet.MaxFrame {
		t.errors.Add(1)
		return nil
	}
	if !t.d.up.Load() {
		t.dropped.Add(1)
		return nil
	}
	switch err := t.d.link.Send(t.pair, h, c.Readable); err {
	case nil:
		t.count(int(n))
	case ethernet.ErrAgain:
		return err
	default:
		t.errors.Add(1)
	}
	return nil
}
